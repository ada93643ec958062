//! The section `[property]` of the configuration.

use serde::{Deserialize, Serialize};

/// The configuration of the property service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many properties one user may have.
    pub max_properties: u32,
    /// How many bytes the names, descriptions and labels of one user's properties may have together.
    pub max_bytes: u64,
    /// How many request ids of creations are kept for one user; each is kept for 24 hours.
    pub max_request_ids: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_properties: 10_000, max_bytes: 16 << 20, max_request_ids: 10_000 }
    }
}

impl Config {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// A sentence that names the key and a valid value.
    pub fn check(&self) -> Result<(), String> {
        if self.max_properties == 0 {
            return Err("property.max_properties must be at least 1".to_owned());
        }
        if self.max_bytes == 0 || i64::try_from(self.max_bytes).is_err() {
            return Err("property.max_bytes must be at least 1, such as 16777216".to_owned());
        }
        if self.max_request_ids == 0 {
            return Err("property.max_request_ids must be at least 1".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_zero_is_not() {
        assert_eq!(Config::default().check(), Ok(()));
        for (config, key) in [
            (Config { max_properties: 0, ..Config::default() }, "property.max_properties"),
            (Config { max_bytes: 0, ..Config::default() }, "property.max_bytes"),
            (Config { max_request_ids: 0, ..Config::default() }, "property.max_request_ids"),
            (Config { max_bytes: u64::MAX, ..Config::default() }, "property.max_bytes"),
        ] {
            assert!(config.check().unwrap_err().starts_with(key));
        }
    }
}
