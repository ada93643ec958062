//! Keys of rate limits.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

/// The key that an attempt counts against. `Copy`, so that counting does not allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(KeyKind);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum KeyKind {
    Address(IpAddr),
    User(Uuid),
    Text([u8; 16]),
}

impl Key {
    /// The client at this address: an IPv4 address, or the /64 prefix of an IPv6 address, since one customer has a whole prefix.
    #[must_use]
    pub fn client(address: IpAddr) -> Self {
        Self(KeyKind::Address(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        }))
    }

    /// This user.
    #[must_use]
    pub fn user(id: Uuid) -> Self {
        Self(KeyKind::User(id))
    }

    /// Any other string. Only its hash is kept, so that a store does not see e-mail addresses.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..16]);
        Self(KeyKind::Text(hash))
    }
}

/// The form in Redis: an address, a user id, or a hash.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            KeyKind::Address(address) => address.fmt(f),
            KeyKind::User(id) => id.fmt(f),
            KeyKind::Text(hash) => write!(f, "{:032x}", u128::from_be_bytes(hash)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Key {
        Key::client(address.parse().unwrap())
    }

    #[test]
    fn an_ipv6_prefix_counts_as_one_address() {
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::9"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_eq!(client("::ffff:192.0.2.7"), client("192.0.2.7"));
        assert_ne!(client("192.0.2.7"), client("192.0.2.8"));
    }

    #[test]
    fn redis_keys_are_distinct_and_hash_strings() {
        assert_eq!(client("192.0.2.7").to_string(), "192.0.2.7");
        assert_eq!(client("2001:db8:1:2::1").to_string(), "2001:db8:1:2::");
        // The first half of the SHA-256 of "abc" (FIPS 180-2, appendix B.1).
        assert_eq!(Key::text("abc").to_string(), "ba7816bf8f01cfea414140de5dae2223");
        assert_ne!(Key::text("192.0.2.7"), client("192.0.2.7"));
    }
}
