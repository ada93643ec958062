//! Where other services are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where `serve` finds the services that it does not run itself.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Peers {
    pub(crate) auth: Option<PeerAddress>,
    pub(crate) user: Option<PeerAddress>,
    pub(crate) session: Option<PeerAddress>,
    pub(crate) property: Option<PeerAddress>,
}

/// `HOST:PORT`, with a name or an IP address for the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct PeerAddress(String);

impl TryFrom<String> for PeerAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_address = text.rsplit_once(':').is_some_and(|(host, port)| {
            let is_bracketed = host.starts_with('[') && host.ends_with(']');
            let is_lawful = |byte: u8| {
                byte.is_ascii_alphanumeric() || b".-_".contains(&byte) || (is_bracketed && b"[]:".contains(&byte))
            };
            !host.is_empty() && host.bytes().all(is_lawful) && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if is_address {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is no address of a service; write HOST:PORT, such as auth.internal:50051"))
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
        for lawful in ["auth:50051", "auth.internal:1", "10.0.0.1:50051", "[::1]:50051"] {
            assert!(PeerAddress::try_from(lawful.to_owned()).is_ok(), "{lawful}");
        }
        for unlawful in [
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
            assert!(PeerAddress::try_from(unlawful.to_owned()).is_err(), "{unlawful}");
        }
    }
}
