//! The addresses of a service.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};

/// Where the instances of a service are: one address, or a list of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PeerAddresses(Vec<PeerAddress>);

impl PeerAddresses {
    /// One address.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        PeerAddress::try_from(text.to_owned()).map(|only| Self(vec![only]))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An address that is also one of `other`.
    pub(super) fn common_with(&self, other: &Self) -> Option<String> {
        self.0.iter().find(|address| other.0.contains(address)).map(PeerAddress::to_string)
    }

    /// Each as a text.
    pub(super) fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(PeerAddress::to_string).collect()
    }
}

impl Serialize for PeerAddresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [only] => only.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for PeerAddresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrSeveral)
    }
}

struct OneOrSeveral;

impl<'de> Visitor<'de> for OneOrSeveral {
    type Value = PeerAddresses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HOST:PORT, or a list of them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PeerAddresses, E> {
        PeerAddresses::of(text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PeerAddresses, A::Error> {
        let mut addresses = Vec::new();
        while let Some(address) = list.next_element::<PeerAddress>()? {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(de::Error::custom("a list of addresses must not be empty; leave the key out"));
        }
        Ok(PeerAddresses(addresses))
    }
}

/// `HOST:PORT`, with a name or an IP address for the host. A name means all its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct PeerAddress(String);

impl TryFrom<String> for PeerAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_address = text.rsplit_once(':').is_some_and(|(host, port)| {
            let is_bracketed = host.starts_with('[') && host.ends_with(']');
            let is_valid = |byte: u8| {
                byte.is_ascii_alphanumeric() || b".-_".contains(&byte) || (is_bracketed && b"[]:".contains(&byte))
            };
            !host.is_empty() && host.bytes().all(is_valid) && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if is_address {
            Ok(Self(text))
        } else {
            Err("it is not the address of a service; write HOST:PORT, such as auth.internal:50051".to_owned())
        }
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> Self {
        address.0
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_make_an_address() {
        for valid in ["auth:50051", "auth.internal:1", "10.0.0.1:50051", "[::1]:50051"] {
            assert!(PeerAddress::try_from(valid.to_owned()).is_ok(), "{valid}");
        }
        for invalid in [
            "",
            "auth",
            ":50051",
            "auth:",
            "auth:0",
            "auth:70000",
            "::1:50051",
            "https://auth:50051",
            "a b:1",
            "auth:1/x",
        ] {
            assert!(PeerAddress::try_from(invalid.to_owned()).is_err(), "{invalid}");
        }
    }
}
