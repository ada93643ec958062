//! The section `[auth.signing_keys]`.

use aws_lc_rs::rsa::KeySize;
use drystone_mesh::config::ConfigDuration;
use serde::{Deserialize, Serialize};

use crate::token::key_spec::{KeyAlgorithm, KeySpec};

/// The bounds of `rotation_period`. A shorter one would have many keys published at once, each for more than an hour.
const MIN_PERIOD: ConfigDuration = ConfigDuration::hours(1);
const MAX_PERIOD: ConfigDuration = ConfigDuration::days(365);

/// The signing keys of access tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SigningKeyConfig {
    /// The algorithm of new keys. A change replaces the key that signs.
    pub algorithm: KeyAlgorithm,
    /// The size of new keys of RS256, in bits.
    pub rsa_bits: u32,
    /// How long a key signs.
    pub rotation_period: ConfigDuration,
}

impl Default for SigningKeyConfig {
    fn default() -> Self {
        Self { algorithm: KeyAlgorithm::Es256, rsa_bits: 2048, rotation_period: ConfigDuration::days(30) }
    }
}

impl SigningKeyConfig {
    /// The algorithm of new keys, with their size.
    pub(crate) fn spec(&self) -> KeySpec {
        match self.algorithm {
            KeyAlgorithm::Es256 => KeySpec::Es256,
            KeyAlgorithm::EdDsa => KeySpec::EdDsa,
            KeyAlgorithm::Rs256 if self.rsa_bits == 3072 => KeySpec::Rs256(KeySize::Rsa3072),
            KeyAlgorithm::Rs256 => KeySpec::Rs256(KeySize::Rsa2048),
        }
    }

    /// Validates the values.
    ///
    /// # Errors
    /// A message that begins with the invalid key.
    pub(crate) fn check(&self) -> Result<(), String> {
        if ![2048, 3072].contains(&self.rsa_bits) {
            return Err("rsa_bits must be 2048 or 3072".to_owned());
        }
        if !(MIN_PERIOD..=MAX_PERIOD).contains(&self.rotation_period) {
            return Err(format!("rotation_period must be from {MIN_PERIOD} to {MAX_PERIOD}, such as `30d`"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_and_the_size_are_bounded() {
        let checked = |rsa_bits, rotation_period| {
            SigningKeyConfig { rsa_bits, rotation_period, ..SigningKeyConfig::default() }.check()
        };
        checked(2048, ConfigDuration::hours(1)).unwrap();
        checked(3072, ConfigDuration::days(365)).unwrap();
        for period in [ConfigDuration::seconds(0), ConfigDuration::minutes(59), ConfigDuration::days(366)] {
            let error = checked(2048, period).unwrap_err();
            assert!(error.starts_with("rotation_period must be from 1h to 365d"), "{error}");
        }
        assert!(checked(1024, ConfigDuration::days(1)).unwrap_err().starts_with("rsa_bits"));
        assert!(checked(4096, ConfigDuration::days(1)).unwrap_err().starts_with("rsa_bits"));
    }

    #[test]
    fn algorithms_have_the_names_of_tokens() {
        for (name, spec) in
            [("ES256", KeySpec::Es256), ("EdDSA", KeySpec::EdDsa), ("RS256", KeySpec::Rs256(KeySize::Rsa3072))]
        {
            let text = format!(r#"{{ "algorithm": "{name}", "rsa_bits": 3072 }}"#);
            let config: SigningKeyConfig = serde_json::from_str(&text).unwrap();
            assert_eq!((config.spec(), config.spec().algorithm().name()), (spec, name));
        }
        assert!(serde_json::from_str::<SigningKeyConfig>(r#"{ "algorithm": "HS256" }"#).is_err());
    }
}
