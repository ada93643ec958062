//! Discovery of the endpoints of a service: literal addresses, and host names with all their addresses.
//!
//! Names are resolved periodically, since endpoints change in Compose and Kubernetes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::endpoints::Endpoints;

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

/// Updates the endpoints: once if every target is an address, else periodically.
pub(super) async fn run(endpoints: Arc<Endpoints>, targets: Vec<HostPort>) {
    let mut known: Vec<Vec<SocketAddr>> = targets.iter().map(HostPort::address).collect();
    // Literal addresses are usable before names are resolved.
    if !known.concat().is_empty() {
        endpoints.set(&known.concat());
    }
    loop {
        let mut fault = None;
        for (found, known) in join_all(targets.iter().map(HostPort::find)).await.into_iter().zip(&mut known) {
            match found {
                Ok(found) => *known = found,
                // The previous addresses stay in use.
                Err(why) => fault = Some(why),
            }
        }
        let mut addresses = known.concat();
        addresses.sort_unstable();
        addresses.dedup();
        match fault {
            Some(why) if addresses.is_empty() => endpoints.set_missing(why),
            _ => endpoints.set(&addresses),
        }
        tokio::time::sleep(if addresses.is_empty() { LOOKUP_RETRY_INTERVAL } else { LOOKUP_INTERVAL }).await;
    }
}

/// The addresses, if every target is one.
pub(super) fn all_addresses(targets: &[HostPort]) -> Option<Vec<SocketAddr>> {
    targets.iter().map(|target| if let HostPort::Address(address) = target { Some(*address) } else { None }).collect()
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

    #[tokio::test]
    async fn a_name_resolves_to_all_its_addresses() {
        assert_eq!(look_up("localhost", 7).await.unwrap(), [socket("127.0.0.1:7")]);
        assert!(look_up("no-such-host.invalid", 7).await.is_err());
    }
}
