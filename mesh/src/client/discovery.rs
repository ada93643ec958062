//! Discovery of the endpoints of a service: literal addresses, and host names with all their addresses.
//!
//! Names are resolved periodically, since endpoints change in Compose and Kubernetes.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::warn;

use super::{endpoints::Endpoints, group::GroupId};

/// The interval of lookups after a successful one.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// The interval of lookups after a failed one.
const LOOKUP_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The timeout of one lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// `HOST:PORT`: the address of one endpoint, or a name with the addresses of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostPort {
    Address(SocketAddr),
    Name(String, u16),
}

impl FromStr for HostPort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let port = port.parse().map_err(drop)?;
        if host.is_empty() || host.contains([':', '[', ']', '/', '@']) {
            return Err(());
        }
        Ok(Self::Name(host.to_owned(), port))
    }
}

/// A target, and the group of its endpoints.
pub(super) type Target = (HostPort, GroupId);

/// Updates the endpoints: once if every target is an address, else periodically.
pub(super) async fn run(endpoints: Arc<Endpoints>, targets: Vec<Target>) {
    let in_group = |group: GroupId| move |address| (address, group);
    let of_target = |(target, group): &Target| target.address().into_iter().map(in_group(*group)).collect();
    let mut known: Vec<Vec<(SocketAddr, GroupId)>> = targets.iter().map(of_target).collect();
    // Literal addresses are usable before names are resolved.
    if !known.concat().is_empty() {
        endpoints.set(&assign(known.concat()));
    }
    let mut warned = HashSet::new();
    loop {
        let mut fault = None;
        let lookups = targets.iter().map(|(target, _)| target.find());
        for ((found, known), (_, group)) in join_all(lookups).await.into_iter().zip(&mut known).zip(&targets) {
            match found {
                Ok(found) => *known = found.into_iter().map(in_group(*group)).collect(),
                // The previous addresses stay in use.
                Err(why) => fault = Some(why),
            }
        }
        let found = known.concat();
        let addresses = assign(found.clone());
        for group in without_address(&found, &addresses) {
            if warned.insert(group) {
                let (service, group) = (endpoints.service(), endpoints.groups.name(group));
                warn!(%service, %group, "group receives no calls, other groups have all its addresses; correct peers");
            }
        }
        match fault {
            Some(why) if addresses.is_empty() => endpoints.set_missing(why),
            _ => endpoints.set(&addresses),
        }
        tokio::time::sleep(if addresses.is_empty() { LOOKUP_RETRY_INTERVAL } else { LOOKUP_INTERVAL }).await;
    }
}

/// Each address once: in the first named group that has it, else in the default one. A name of all instances includes those of
/// a named group.
///
/// If no address were left for the default group, it keeps its own: it takes the calls of groups that fail.
fn assign(mut found: Vec<(SocketAddr, GroupId)>) -> Vec<(SocketAddr, GroupId)> {
    let in_default = |(_, group): &&(SocketAddr, GroupId)| *group == GroupId::DEFAULT;
    let named: HashSet<SocketAddr> =
        found.iter().filter(|entry| !in_default(entry)).map(|(address, _)| *address).collect();
    if found.iter().filter(in_default).any(|(address, _)| !named.contains(address)) {
        found.sort_unstable_by_key(|(address, group)| (*address, *group == GroupId::DEFAULT, *group));
    } else {
        found.sort_unstable();
    }
    found.dedup_by_key(|(address, _)| *address);
    found
}

/// The groups with found addresses all of which are assigned to others.
fn without_address(found: &[(SocketAddr, GroupId)], assigned: &[(SocketAddr, GroupId)]) -> HashSet<GroupId> {
    let has_any = |group: GroupId| assigned.iter().any(|(_, other)| *other == group);
    found.iter().map(|(_, group)| *group).filter(|group| !has_any(*group)).collect()
}

/// The addresses, if every target is one.
pub(super) fn all_addresses(targets: &[Target]) -> Option<Vec<(SocketAddr, GroupId)>> {
    let address = |(target, group): &Target| match target {
        HostPort::Address(address) => Some((*address, *group)),
        HostPort::Name(..) => None,
    };
    targets.iter().map(address).collect::<Option<Vec<_>>>().map(assign)
}

impl HostPort {
    fn address(&self) -> Vec<SocketAddr> {
        match self {
            Self::Address(address) => vec![*address],
            Self::Name(..) => Vec::new(),
        }
    }

    /// Resolves the target, or says why that failed.
    async fn find(&self) -> Result<Vec<SocketAddr>, String> {
        let Self::Name(host, port) = self else { return Ok(self.address()) };
        match timeout(LOOKUP_TIMEOUT, look_up(host, *port)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(format!("the name `{host}` cannot be resolved: {error}")),
            Err(_) => Err(format!("the name `{host}` cannot be resolved: no answer within {LOOKUP_TIMEOUT:?}")),
        }
    }
}

async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(one_family(found))
}

/// The IPv4 addresses, if there are any: a host with both families is one endpoint, and usually listens on IPv4.
fn one_family(mut found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if found.iter().any(SocketAddr::is_ipv4) {
        found.retain(|address| matches!(address.ip(), IpAddr::V4(_)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::group::Groups;

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_target_is_an_address_or_a_name() {
        assert_eq!("10.0.0.1:50051".parse(), Ok(HostPort::Address(socket("10.0.0.1:50051"))));
        assert_eq!("[::1]:50051".parse(), Ok(HostPort::Address(socket("[::1]:50051"))));
        assert_eq!("auth.internal:1".parse(), Ok(HostPort::Name("auth.internal".to_owned(), 1)));
        for bad in ["", "auth", ":1", "auth:", "auth:70000", "::1:50051", "https://auth:1", "[auth]:1"] {
            assert_eq!(bad.parse::<HostPort>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn ipv4_addresses_are_preferred() {
        let (four, six) = (socket("127.0.0.1:1"), socket("[::1]:1"));
        assert_eq!(one_family(vec![six, four]), [four]);
        assert_eq!(one_family(vec![six]), [six]);
    }

    #[test]
    fn an_address_of_several_groups_belongs_to_a_named_one() {
        let [one, two] = ["10.0.0.1:1", "10.0.0.2:1"].map(socket);
        let (default, canary, trial) = (GroupId::DEFAULT, Groups::id(0), Groups::id(1));
        assert_eq!(
            assign(vec![(one, default), (two, default), (two, canary)]),
            [(one, default), (two, canary)],
            "a name of all instances includes the canary"
        );
        let found = vec![(one, default), (two, trial), (two, canary)];
        let assigned = assign(found.clone());
        assert_eq!(assigned, [(one, default), (two, canary)]);
        assert_eq!(without_address(&found, &assigned), HashSet::from([trial]));
    }

    #[test]
    fn the_default_group_keeps_its_addresses_if_it_has_no_others() {
        let [one, two] = ["10.0.0.1:1", "10.0.0.2:1"].map(socket);
        let (default, canary) = (GroupId::DEFAULT, Groups::id(0));
        let found = vec![(one, canary), (two, canary), (two, default)];
        assert_eq!(assign(found), [(one, canary), (two, default)]);
        let found = vec![(one, default), (one, canary)];
        let assigned = assign(found.clone());
        assert_eq!(assigned, [(one, default)]);
        assert_eq!(without_address(&found, &assigned), HashSet::from([canary]));
        // Its name is not resolved yet.
        assert_eq!(assign(vec![(one, canary)]), [(one, canary)]);
    }

    #[tokio::test]
    async fn a_name_resolves_to_all_its_addresses() {
        assert_eq!(look_up("localhost", 7).await.unwrap(), [socket("127.0.0.1:7")]);
        assert!(look_up("no-such-host.invalid", 7).await.is_err());
    }
}
