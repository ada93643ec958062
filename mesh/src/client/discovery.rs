//! Where the instances of a service are: addresses as they stand, and names, each for all addresses that it has.
//!
//! Names are looked up again and again: where instances come and go, as in Compose and Kubernetes, the name service
//! knows first.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::instances::Instances;

/// How often a name is looked up that was found.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// How often a name is looked up that was not found.
const LOOKUP_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How long one lookup may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// `HOST:PORT`: where to find one instance, or all of those that a name stands for.
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

/// Tells the instances which there are: at once where every place is an address, else for ever.
pub(super) async fn run(instances: Arc<Instances>, places: Vec<HostPort>) {
    let mut known: Vec<Vec<SocketAddr>> = places.iter().map(HostPort::address).collect();
    // Names need not be waited for where an address is there.
    if !known.concat().is_empty() {
        instances.set(&known.concat());
    }
    loop {
        let mut fault = None;
        for (found, known) in join_all(places.iter().map(HostPort::find)).await.into_iter().zip(&mut known) {
            match found {
                Ok(found) => *known = found,
                // What was found before is still the best that is known.
                Err(why) => fault = Some(why),
            }
        }
        let mut addresses = known.concat();
        addresses.sort_unstable();
        addresses.dedup();
        match fault {
            Some(why) if addresses.is_empty() => instances.set_missing(why),
            _ => instances.set(&addresses),
        }
        tokio::time::sleep(if addresses.is_empty() { LOOKUP_RETRY_INTERVAL } else { LOOKUP_INTERVAL }).await;
    }
}

/// The addresses among places, where all are.
pub(super) fn all_addresses(places: &[HostPort]) -> Option<Vec<SocketAddr>> {
    places.iter().map(|place| if let HostPort::Address(address) = place { Some(*address) } else { None }).collect()
}

impl HostPort {
    fn address(&self) -> Vec<SocketAddr> {
        match self {
            Self::Address(address) => vec![*address],
            Self::Name(..) => Vec::new(),
        }
    }

    /// The addresses that it has now, or why they are not known.
    async fn find(&self) -> Result<Vec<SocketAddr>, String> {
        let Self::Name(host, port) = self else { return Ok(self.address()) };
        match timeout(LOOKUP_TIMEOUT, look_up(host, *port)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(format!("the name `{host}` cannot be looked up: {error}")),
            Err(_) => Err(format!("the name `{host}` cannot be looked up: no answer within {LOOKUP_TIMEOUT:?}")),
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

/// The IPv4 addresses, if there are any: a machine that has both is one instance and not two, and where it listens on one
/// of them alone, it is that.
fn one_family(mut found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if found.iter().any(SocketAddr::is_ipv4) {
        found.retain(|address| matches!(address.ip(), IpAddr::V4(_)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_an_address_or_a_name() {
        assert_eq!("10.0.0.1:50051".parse(), Ok(HostPort::Address(socket("10.0.0.1:50051"))));
        assert_eq!("[::1]:50051".parse(), Ok(HostPort::Address(socket("[::1]:50051"))));
        assert_eq!("auth.internal:1".parse(), Ok(HostPort::Name("auth.internal".to_owned(), 1)));
        for bad in ["", "auth", ":1", "auth:", "auth:70000", "::1:50051", "https://auth:1", "[auth]:1"] {
            assert_eq!(bad.parse::<HostPort>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn of_two_families_one_is_taken() {
        let (four, six) = (socket("127.0.0.1:1"), socket("[::1]:1"));
        assert_eq!(one_family(vec![six, four]), [four]);
        assert_eq!(one_family(vec![six]), [six]);
    }

    #[tokio::test]
    async fn a_name_stands_for_its_addresses() {
        assert_eq!(look_up("localhost", 7).await.unwrap(), [socket("127.0.0.1:7")]);
        assert!(look_up("no-such-host.invalid", 7).await.is_err());
    }
}
