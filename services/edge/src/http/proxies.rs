//! The client's address behind trusted proxies, such as TLS terminators.
//!
//! `x-forwarded-for` and `forwarded` are used only on connections from a trusted proxy, and only as far as trusted proxies
//! wrote them: from the right, past the addresses of trusted proxies, up to the first other address. An invalid or unknown
//! address ends the search: then the last proxy counts as the client.
//!
//! One of the two headers is read, never both: a proxy that writes one of them passes on the other as its client sent it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use serde::{Deserialize, Serialize};

use crate::{config::Config, http::forwarded};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The maximum length of a chain of proxies: a client can send as many addresses of trusted proxies as fit into a header.
const MAX_PROXIES: usize = 16;

/// The header in which a proxy reports the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAddressHeader {
    /// `x-forwarded-for`, else `forwarded`. For proxies that write `x-forwarded-for`, and for those that write `forwarded`
    /// and remove a client's `x-forwarded-for`.
    #[default]
    Either,
    /// Only `x-forwarded-for`.
    XForwardedFor,
    /// Only `forwarded` (RFC 7239).
    Forwarded,
}

/// The peer of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// That of the socket.
    Socket(SocketAddr),
    /// The client that a trusted proxy states with the PROXY protocol.
    Stated(SocketAddr),
    /// A client whose address this trusted proxy does not state.
    Unstated(SocketAddr),
}

impl Peer {
    /// Its address, or that of its proxy.
    pub(crate) fn address(self) -> SocketAddr {
        let (Self::Socket(address) | Self::Stated(address) | Self::Unstated(address)) = self;
        address
    }
}

/// The proxies that are trusted to report the client's address.
#[derive(Debug)]
pub(crate) struct TrustedProxies {
    networks: Vec<Network>,
    header: ClientAddressHeader,
    /// Whether a proxy that is not trusted has been reported.
    has_warned: AtomicBool,
}

impl TrustedProxies {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            networks: config.trusted_proxies.clone(),
            header: config.client_address_header,
            has_warned: AtomicBool::new(false),
        }
    }

    /// Whether this peer may report another client.
    pub(crate) fn trusts_peer(&self, peer: Peer) -> bool {
        match peer {
            Peer::Socket(address) | Peer::Stated(address) => self.trusts(address.ip()),
            Peer::Unstated(_) => false,
        }
    }

    /// The client's address, for a connection from `peer`.
    pub(crate) fn client(&self, peer: Peer, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.address().ip().to_canonical();
        if !self.trusts_peer(peer) {
            // Behind a proxy that speaks the PROXY protocol, a client cannot be a proxy that was not configured.
            if matches!(peer, Peer::Socket(_)) {
                self.warn_of_untrusted_proxy(client, headers);
            }
            return client;
        }
        let is_x_forwarded_for = match self.header {
            ClientAddressHeader::Either => headers.contains_key(X_FORWARDED_FOR),
            ClientAddressHeader::XForwardedFor => true,
            ClientAddressHeader::Forwarded => false,
        };
        let name = if is_x_forwarded_for { X_FORWARDED_FOR } else { FORWARDED };
        let lines = headers.get_all(name).iter().rev().map(HeaderValue::as_bytes);
        let addresses = lines.flat_map(|line| {
            forwarded::elements_from_the_right(line).map(|element| {
                if is_x_forwarded_for { forwarded::address(element) } else { forwarded::client_of(element) }
            })
        });
        for address in addresses.take(MAX_PROXIES) {
            let Some(address) = address else { break };
            client = address.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    /// Warns once that a peer that is not trusted reports another client: it may be a proxy that was not configured.
    fn warn_of_untrusted_proxy(&self, peer: IpAddr, headers: &HeaderMap) {
        let is_forwarded = headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED);
        if is_forwarded && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                "a peer that is not in edge.trusted_proxies reports the client's address; if it is your proxy, list it, or all \
                 its clients share one rate limit"
            );
        }
    }

    /// Whether this peer is a trusted proxy.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

/// An address or a CIDR block: `10.0.0.7`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Text that is not a network.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a network; write an address such as `10.0.0.7`, or a network such as `10.0.0.0/8`")]
pub struct NetworkError(String);

impl Network {
    /// Whether the network contains the address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                u32::from(network).checked_shr(shift) == u32::from(address).checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                u128::from(network).checked_shr(shift) == u128::from(address).checked_shr(shift)
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
            let max = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(max), |bits| bits.parse().ok())?;
            (bits <= max).then_some(Self { address, bits })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn client(header: ClientAddressHeader, trusted: &[&str], peer: &str, lines: &[(HeaderName, &str)]) -> String {
        let trusted_proxies = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let config = Config { trusted_proxies, client_address_header: header, ..Config::default() };
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        TrustedProxies::new(&config)
            .client(Peer::Socket((peer.parse::<IpAddr>().unwrap(), 1).into()), &headers)
            .to_string()
    }

    fn x_forwarded_for(trusted: &[&str], peer: &str, values: &[&str]) -> String {
        let lines: Vec<_> = values.iter().map(|value| (X_FORWARDED_FOR, *value)).collect();
        client(ClientAddressHeader::Either, trusted, peer, &lines)
    }

    fn forwarded(values: &[&str]) -> String {
        let lines: Vec<_> = values.iter().map(|value| (FORWARDED, *value)).collect();
        client(ClientAddressHeader::Either, &["10.0.0.0/8"], "10.0.0.1", &lines)
    }

    #[test]
    fn a_stated_client_is_no_proxy_to_be_listed() {
        let proxies =
            TrustedProxies::new(&Config { trusted_proxies: vec!["10.0.0.1".parse().unwrap()], ..Config::default() });
        let headers = HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.9"))]);
        let at = |address: [u8; 4]| SocketAddr::from((address, 1));
        assert_eq!(proxies.client(Peer::Stated(at([192, 0, 2, 1])), &headers).to_string(), "192.0.2.1");
        assert_eq!(proxies.client(Peer::Unstated(at([10, 0, 0, 1])), &headers).to_string(), "10.0.0.1");
        assert!(!proxies.has_warned.load(Ordering::Relaxed));
        assert_eq!(proxies.client(Peer::Stated(at([10, 0, 0, 1])), &headers).to_string(), "192.0.2.9");
        assert_eq!(proxies.client(Peer::Socket(at([192, 0, 2, 1])), &headers).to_string(), "192.0.2.1");
        assert!(proxies.has_warned.load(Ordering::Relaxed));
    }

    #[test]
    fn no_proxy_is_trusted_unless_configured() {
        assert_eq!(x_forwarded_for(&[], "10.0.0.1", &["192.0.2.1"]), "10.0.0.1");
        assert_eq!(x_forwarded_for(&["10.0.0.2"], "10.0.0.1", &["192.0.2.1"]), "10.0.0.1");
    }

    #[test]
    fn addresses_are_read_from_the_right_up_to_the_first_untrusted() {
        assert_eq!(x_forwarded_for(&["10.0.0.0/8"], "10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(
            x_forwarded_for(&["10.0.0.0/8"], "10.0.0.1", &["6.6.6.6, 192.0.2.1"]),
            "192.0.2.1",
            "an address that the client sent"
        );
        assert_eq!(x_forwarded_for(&["10.0.0.0/8"], "10.0.0.1", &["192.0.2.1, 10.9.9.9"]), "192.0.2.1", "two proxies");
        assert_eq!(x_forwarded_for(&["10.0.0.0/8"], "10.0.0.1", &["6.6.6.6", "192.0.2.1"]), "192.0.2.1", "two headers");
        assert_eq!(x_forwarded_for(&["10.0.0.0/8"], "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(x_forwarded_for(&["10.0.0.0/8"], "10.0.0.1", &["192.0.2.1, nonsense"]), "10.0.0.1");
        assert_eq!(x_forwarded_for(&["10.0.0.0/8"], "::ffff:10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    }

    #[test]
    fn ports_and_brackets_are_removed() {
        for (value, client) in [
            ("203.0.113.7:51234", "203.0.113.7"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
            (" 192.0.2.1\t", "192.0.2.1"),
            ("6.6.6.6, 203.0.113.7:51234,[2001:db8::1]:443", "2001:db8::1"),
            ("192.0.2.1:1, 10.0.0.2:2, 10.0.0.3:3", "192.0.2.1"),
        ] {
            assert_eq!(x_forwarded_for(&["10.0.0.0/8"], "10.0.0.1", &[value]), client, "{value}");
        }
        for invalid in [
            "",
            "unknown",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:123456",
            "[192.0.2.1]",
            "[2001:db8::1",
            "[2001:db8::1]8",
            "192.0.2",
            "\u{e9}",
        ] {
            assert_eq!(
                x_forwarded_for(&["10.0.0.0/8"], "10.0.0.1", &[&format!("6.6.6.6, {invalid}")]),
                "10.0.0.1",
                "{invalid}"
            );
        }
    }

    #[test]
    fn forwarded_is_parsed_as_in_rfc_7239() {
        for (lines, client) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60"),
            (&[r#"For="[2001:db8:cafe::17]:4711""#], "2001:db8:cafe::17"),
            (&[r#"by=10.0.0.2; FOR="192.0.2.60:_port" ;host="a,b;for=6.6.6.6\"\\""#], "192.0.2.60"),
            (&["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
            (&["for=192.0.2.43,for=10.1.1.1;by=10.0.0.1 , for=10.2.2.2"], "192.0.2.43"),
            (&["for=6.6.6.6", "for=192.0.2.43", "for=10.1.1.1"], "192.0.2.43"),
            (&[r#"for="open, for=192.0.2.43"#], "192.0.2.43"),
            (&[r#"for=6.6.6.6;host="\"#, "for=192.0.2.43"], "192.0.2.43"),
            (&["for=192.0.2.43;x="], "10.0.0.1"),
            (&["for=unknown"], "10.0.0.1"),
            (&["for=192.0.2.43, for=_hidden"], "10.0.0.1"),
            (&["for=192.0.2.43, for=_hidden, for=10.1.1.1"], "10.1.1.1"),
            (&["proto=https"], "10.0.0.1"),
            (&["for=192.0.2.43;for=192.0.2.44"], "10.0.0.1"),
            (&["192.0.2.43"], "10.0.0.1"),
            (&["for=2001:db8::1"], "10.0.0.1"),
            (&["for = 192.0.2.43"], "10.0.0.1"),
        ] {
            assert_eq!(forwarded(lines), client, "{lines:?}");
        }
    }

    #[test]
    fn only_one_of_the_two_headers_is_read() {
        let both = [(FORWARDED, "for=192.0.2.1"), (X_FORWARDED_FOR, "192.0.2.2")];
        let read = |header, lines: &[(HeaderName, &str)]| client(header, &["10.0.0.0/8"], "10.0.0.1", lines);
        assert_eq!(read(ClientAddressHeader::Either, &both), "192.0.2.2");
        assert_eq!(read(ClientAddressHeader::XForwardedFor, &both), "192.0.2.2");
        assert_eq!(read(ClientAddressHeader::Forwarded, &both), "192.0.2.1");
        // The other header is not read where the first is invalid.
        let invalid = [(FORWARDED, "for=192.0.2.1"), (X_FORWARDED_FOR, "unknown")];
        assert_eq!(read(ClientAddressHeader::Either, &invalid), "10.0.0.1");
        assert_eq!(read(ClientAddressHeader::XForwardedFor, &both[..1]), "10.0.0.1");
        assert_eq!(read(ClientAddressHeader::Forwarded, &both[1..]), "10.0.0.1");
    }

    #[test]
    fn the_chain_of_proxies_is_bounded() {
        let chain = |proxies: usize| format!("192.0.2.1{}", ", 10.0.0.2".repeat(proxies));
        assert_eq!(x_forwarded_for(&["10.0.0.0/8"], "10.0.0.1", &[&chain(MAX_PROXIES - 1)]), "192.0.2.1");
        assert_eq!(x_forwarded_for(&["10.0.0.0/8"], "10.0.0.1", &[&chain(MAX_PROXIES)]), "10.0.0.2");
    }

    #[test]
    fn networks_are_parsed_as_cidr_blocks() {
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
