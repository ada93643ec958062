//! Which addresses webhooks are sent to, so that a URL cannot reach what only this host can reach (server-side request
//! forgery).
//!
//! Sources: the registries of special-purpose addresses of IANA,
//! <https://www.iana.org/assignments/iana-ipv4-special-registry> and
//! <https://www.iana.org/assignments/iana-ipv6-special-registry>.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not public: `allow_private` allows it.
    Private,
    /// It is refused for all endpoints.
    Always,
}

/// The addresses that begin with the first `length` bits of `prefix`.
#[derive(Debug)]
struct Network {
    prefix: IpAddr,
    length: u32,
}

/// Addresses that no receiver has: not even an operator's private ones.
const NEVER: [Network; 16] = [
    // "This network", with the unspecified address, which is this host.
    v4([0, 0, 0, 0], 8),
    // Multicast and broadcast.
    v4([224, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
    // Metadata and credentials of clouds: most of them, AWS for containers, Alibaba, Oracle, Azure, AWS, Google.
    v4([169, 254, 169, 0], 24),
    v4([169, 254, 170, 0], 24),
    v4([100, 100, 100, 200], 32),
    v4([192, 0, 0, 192], 32),
    v4([168, 63, 129, 16], 32),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
    // What embeds an IPv4 address in ways that are not unwrapped below: Teredo, 6to4, local NAT64, and SIIT.
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96),
];

/// IPv4 addresses that are not public.
const NOT_PUBLIC_V4: [Network; 13] = [
    // Private.
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    // Shared, of carriers.
    v4([100, 64, 0, 0], 10),
    // Loopback and link-local.
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    // Protocol assignments, and the relays of 6to4.
    v4([192, 0, 0, 0], 24),
    v4([192, 88, 99, 0], 24),
    // Benchmarking and documentation.
    v4([198, 18, 0, 0], 15),
    v4([192, 0, 2, 0], 24),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    // Reserved.
    v4([240, 0, 0, 0], 4),
];

/// All IPv6 addresses that are public. What is outside is refused: loopback, unique local (`fc00::/7`), link-local,
/// site-local, discard (`100::/64`), NAT64, IPv4-mapped and -compatible, and what is not assigned.
const GLOBAL_UNICAST: Network = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// What is not public in it: protocol assignments with benchmarking, and documentation.
const NOT_PUBLIC_V6: [Network; 3] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

/// Networks whose addresses end with an IPv4 address that they lead to: compatible, mapped and NAT64.
const EMBEDDING: [Network; 3] =
    [v6([0, 0, 0, 0, 0, 0, 0, 0], 96), v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96)];

/// Checks an address that is to be connected to.
pub(super) fn check(address: IpAddr, allow_private: bool) -> Result<(), Refusal> {
    let embedded = embedded(address);
    if NEVER.iter().any(|network| network.contains(address) || embedded.is_some_and(|inner| network.contains(inner))) {
        return Err(Refusal::Always);
    }
    if allow_private || is_public(address) { Ok(()) } else { Err(Refusal::Private) }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => !NOT_PUBLIC_V4.iter().any(|network| network.contains(address)),
        IpAddr::V6(_) => {
            GLOBAL_UNICAST.contains(address) && !NOT_PUBLIC_V6.iter().any(|network| network.contains(address))
        }
    }
}

/// The IPv4 address that an IPv6 address leads to.
fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let leads_to_v4 = v6 != Ipv6Addr::LOCALHOST && EMBEDDING.iter().any(|network| network.contains(address));
    let [.., a, b, c, d] = v6.octets();
    leads_to_v4.then(|| Ipv4Addr::new(a, b, c, d).into())
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.prefix, address) {
            (IpAddr::V4(prefix), IpAddr::V4(address)) => {
                (prefix.to_bits() ^ address.to_bits()).leading_zeros() >= self.length
            }
            (IpAddr::V6(prefix), IpAddr::V6(address)) => {
                (prefix.to_bits() ^ address.to_bits()).leading_zeros() >= self.length
            }
            _ => false,
        }
    }
}

const fn v4(prefix: [u8; 4], length: u32) -> Network {
    Network { prefix: IpAddr::V4(Ipv4Addr::from_octets(prefix)), length }
}

const fn v6(prefix: [u16; 8], length: u32) -> Network {
    Network { prefix: IpAddr::V6(Ipv6Addr::from_segments(prefix)), length }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(address: &str, allow_private: bool) -> Result<(), Refusal> {
        check(address.parse().unwrap(), allow_private)
    }

    #[test]
    fn a_public_address_is_allowed() {
        for address in "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
            169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255 \
            192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 203.0.114.0 223.255.255.255 2001:200::1 \
            2606:4700:4700::1111 2a00:1450:4001:82a::200e 3fff:1000::1"
            .split_whitespace()
        {
            assert_eq!(checked(address, false), Ok(()), "{address}");
            assert_eq!(checked(address, true), Ok(()), "{address}");
        }
    }

    #[test]
    fn a_private_or_reserved_address_needs_allow_private() {
        for address in "10.0.0.0 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1 100.127.255.255 \
            127.0.0.1 127.255.255.255 169.254.0.1 169.254.255.255 192.0.0.8 192.88.99.1 198.18.0.1 \
            198.19.255.255 192.0.2.1 198.51.100.1 203.0.113.255 240.0.0.1 255.255.255.254 ::1 fc00::1 \
            fdff:ffff::1 fe80::1 febf::1 fec0::1 feff::1 100::1 2001:1::1 2001:2::1 2001:20::1 2001:db8::1 \
            3fff::1 4000::1 5f00::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:1.1.1.1 ::127.0.0.1 ::1.1.1.1 \
            64:ff9b::1.1.1.1 64:ff9b::10.0.0.1"
            .split_whitespace()
        {
            assert_eq!(checked(address, false), Err(Refusal::Private), "{address}");
            assert_eq!(checked(address, true), Ok(()), "{address}");
        }
    }

    #[test]
    fn some_addresses_are_refused_for_all_endpoints() {
        for address in "0.0.0.0 0.1.2.3 :: 224.0.0.1 239.255.255.255 255.255.255.255 ff02::1 ff0e::1 169.254.169.254 \
            169.254.170.2 169.254.170.23 100.100.100.200 192.0.0.192 168.63.129.16 fd00:ec2::254 \
            fd00:ec2::23 fd20:ce::254 ::ffff:169.254.169.254 ::169.254.169.254 64:ff9b::169.254.169.254 \
            ::ffff:0.0.0.0 64:ff9b::224.0.0.1 64:ff9b::0.0.0.1 64:ff9b:1::1.1.1.1 ::ffff:0:169.254.169.254 \
            2002:a9fe:a9fe::1 2002:101:101::1 2001::1 2001:0:ffff::1"
            .split_whitespace()
        {
            for allow_private in [false, true] {
                assert_eq!(checked(address, allow_private), Err(Refusal::Always), "{address}");
            }
        }
    }
}
