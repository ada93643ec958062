//! The trust domain as a setting.

use drystone_mesh::identity::TrustDomain;
use serde::{Deserialize, Deserializer, Serializer, de};

/// The default trust domain.
const STANDARD: &str = "drystone.local";

#[expect(clippy::expect_used, reason = "the test below proves it")]
pub(super) fn standard() -> TrustDomain {
    STANDARD.parse().expect("the standard trust domain is valid")
}

pub(super) fn serialize<S: Serializer>(domain: &TrustDomain, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(domain.as_str())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TrustDomain, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_is_valid() {
        assert_eq!(standard().as_str(), STANDARD);
    }
}
