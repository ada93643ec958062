//! The section `[user]` of the configuration.

use drystone_mesh::config::ConfigDuration;
use serde::{Deserialize, Serialize};

/// The longest time for which a deleted account can be kept.
const MAX_RETENTION: ConfigDuration = ConfigDuration::days(3650);

/// The configuration of the user service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a deleted account can be restored before it is removed for good.
    pub deleted_retention: ConfigDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self { deleted_retention: ConfigDuration::days(30) }
    }
}

impl Config {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// A sentence that names the key and a valid value.
    pub fn check(&self) -> Result<(), String> {
        if self.deleted_retention > MAX_RETENTION {
            return Err("user.deleted_retention must be at most 3650d, such as 30d".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retention_is_bounded() {
        assert_eq!(Config::default().check(), Ok(()));
        let forever = Config { deleted_retention: ConfigDuration::days(4000) };
        assert!(forever.check().unwrap_err().starts_with("user.deleted_retention"));
    }
}
