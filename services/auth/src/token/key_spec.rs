//! The algorithms of signing keys.

use aws_lc_rs::rsa::KeySize;
use serde::{Deserialize, Serialize};

/// An algorithm of signing keys, by its name in tokens and JWKs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256 with SHA-256 (RFC 7518, section 3.4).
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519 (RFC 8037).
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3).
    #[serde(rename = "RS256")]
    Rs256,
}

impl KeyAlgorithm {
    /// The `alg` value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }

    /// The algorithm with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Es256, Self::EdDsa, Self::Rs256].into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// An algorithm with the size of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySpec {
    /// ES256.
    Es256,
    /// EdDSA with Ed25519.
    EdDsa,
    /// RS256 with keys of this size.
    Rs256(KeySize),
}

impl KeySpec {
    /// The algorithm.
    #[must_use]
    pub const fn algorithm(self) -> KeyAlgorithm {
        match self {
            Self::Es256 => KeyAlgorithm::Es256,
            Self::EdDsa => KeyAlgorithm::EdDsa,
            Self::Rs256(_) => KeyAlgorithm::Rs256,
        }
    }
}
