//! Who called, when a proxy such as a TLS front stands before the edge.
//!
//! `x-forwarded-for` is a claim. It is believed only of a proxy that the configuration names, and only as far as that proxy
//! itself has seen: from the right, past the proxies that are trusted, up to the first address that is not one of them.

use std::{fmt, net::IpAddr, str::FromStr};

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// An address, or all addresses with the same first bits: `10.0.0.7`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no network; write an address such as `10.0.0.7`, or a network such as `10.0.0.0/8`")]
pub struct NetworkError(String);

impl Network {
    /// Whether this address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let shift = 32 - u32::from(self.bits);
                u32::from(ours).checked_shr(shift) == u32::from(theirs).checked_shr(shift)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let shift = 128 - u32::from(self.bits);
                u128::from(ours).checked_shr(shift) == u128::from(theirs).checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let parse = || {
            let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
            (bits <= most).then_some(Self { address, bits })
        };
        parse().ok_or_else(|| NetworkError(text.to_owned()))
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The client's address, for a connection that came from `peer`.
pub(crate) fn client(trusted: &[Network], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    let values = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut claims = values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(',')).map(str::trim);
    while is_trusted(client) {
        match claims.next().map(str::parse::<IpAddr>) {
            Some(Ok(address)) => client = address.to_canonical(),
            // What cannot be read was not written by a proxy that is to be trusted.
            Some(Err(_)) | None => break,
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn seen(trusted: &[&str], peer: &str, claims: &[&'static str]) -> String {
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for claim in claims {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(claim));
        }
        client(&trusted, peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn nobody_is_believed_unless_the_configuration_says_so() {
        assert_eq!(seen(&[], "10.0.0.1", &["192.0.2.1"]), "10.0.0.1");
        assert_eq!(seen(&["10.0.0.2"], "10.0.0.1", &["192.0.2.1"]), "10.0.0.1");
    }

    #[test]
    fn a_proxy_is_believed_as_far_as_it_has_seen_itself() {
        assert_eq!(seen(&["10.0.0.0/8"], "10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(seen(&["10.0.0.0/8"], "10.0.0.1", &["6.6.6.6, 192.0.2.1"]), "192.0.2.1", "the client's own claim");
        assert_eq!(seen(&["10.0.0.0/8"], "10.0.0.1", &["192.0.2.1, 10.9.9.9"]), "192.0.2.1", "two proxies");
        assert_eq!(seen(&["10.0.0.0/8"], "10.0.0.1", &["6.6.6.6", "192.0.2.1"]), "192.0.2.1", "two headers");
        assert_eq!(seen(&["10.0.0.0/8"], "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(seen(&["10.0.0.0/8"], "10.0.0.1", &["192.0.2.1, nonsense"]), "10.0.0.1");
        assert_eq!(seen(&["10.0.0.0/8"], "::ffff:10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    }

    #[test]
    fn a_network_is_an_address_and_so_many_bits() {
        let network = |text: &str| text.parse::<Network>();
        assert!(network("10.0.0.0/8").unwrap().contains("10.255.0.1".parse().unwrap()));
        assert!(!network("10.0.0.0/8").unwrap().contains("11.0.0.1".parse().unwrap()));
        assert!(network("0.0.0.0/0").unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!(!network("0.0.0.0/0").unwrap().contains("2001:db8::1".parse().unwrap()));
        assert!(network("fd00::/8").unwrap().contains("fdff::1".parse().unwrap()));
        assert!(network("::1").unwrap().contains("::1".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "fd00::/129", "10.0.0.0/", "10.0.0/8", "localhost", "10.0.0.0/-1"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
