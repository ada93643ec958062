//! The section `[session]` of the configuration.

use std::time::Duration;

use drystone_mesh::config::ConfigDuration;
use serde::{Deserialize, Serialize};

/// The longest lifetime that can be configured.
const MAX_LIFETIME: ConfigDuration = ConfigDuration::days(3650);

/// Watchers take silence of 10 s for a broken connection; a sign of life has to come well before.
const SLOWEST_HEARTBEAT: ConfigDuration = ConfigDuration::seconds(5);

/// How the session service runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What sessions and revocations are kept in.
    pub store: StoreKind,
    /// How long a session lives without a refresh.
    pub idle_timeout: ConfigDuration,
    /// How long a session lives in any case.
    pub lifetime: ConfigDuration,
    /// How long after a refresh the token that was traded in may come again, for an answer that was lost.
    pub rotation_grace: ConfigDuration,
    /// How long an access token can live at most, by any service's configuration: a revocation is kept that long.
    pub token_lifetime_max: ConfigDuration,
    /// How long a revoking call waits for each watcher to say that it has applied the revocation.
    pub acknowledgement_timeout: ConfigDuration,
    /// How often a watcher gets a sign of life.
    pub heartbeat: ConfigDuration,
}

/// What sessions and revocations are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A database: the section `[session.database]`.
    Sql,
    /// Redis: the section `[redis]`.
    Redis,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: StoreKind::Sql,
            idle_timeout: ConfigDuration::days(14),
            lifetime: ConfigDuration::days(90),
            rotation_grace: ConfigDuration::seconds(10),
            token_lifetime_max: ConfigDuration::hours(1),
            acknowledgement_timeout: ConfigDuration::millis(250),
            heartbeat: ConfigDuration::seconds(2),
        }
    }
}

impl Config {
    /// What types cannot say of the values.
    ///
    /// # Errors
    /// A sentence that names the key and says what to write.
    pub fn check(&self) -> Result<(), String> {
        for (key, value, example) in [
            ("idle_timeout", self.idle_timeout, "14d"),
            ("lifetime", self.lifetime, "90d"),
            ("token_lifetime_max", self.token_lifetime_max, "1h"),
            ("acknowledgement_timeout", self.acknowledgement_timeout, "250ms"),
            ("heartbeat", self.heartbeat, "2s"),
        ] {
            if value.duration() == Duration::ZERO || value > MAX_LIFETIME {
                return Err(format!(
                    "session.{key} must be more than 0 and at most {MAX_LIFETIME}, such as `{example}`"
                ));
            }
        }
        if self.idle_timeout > self.lifetime {
            return Err(format!("session.idle_timeout must be at most session.lifetime, which is {}", self.lifetime));
        }
        if self.rotation_grace >= self.idle_timeout {
            return Err(format!(
                "session.rotation_grace must be less than session.idle_timeout, which is {}",
                self.idle_timeout
            ));
        }
        if self.heartbeat > SLOWEST_HEARTBEAT {
            return Err(format!("session.heartbeat must be at most {SLOWEST_HEARTBEAT}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Config::default().check().unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(refused(|config| config.idle_timeout = ConfigDuration::seconds(0)).contains("session.idle_timeout"));
        assert!(
            refused(|config| config.idle_timeout = ConfigDuration::days(91)).contains("session.lifetime, which is 90d")
        );
        assert!(refused(|config| config.lifetime = ConfigDuration::days(9999)).contains("session.lifetime"));
        assert!(refused(|config| config.rotation_grace = ConfigDuration::days(14)).contains("session.rotation_grace"));
        assert!(
            refused(|config| config.token_lifetime_max = ConfigDuration::seconds(0))
                .contains("session.token_lifetime_max")
        );
        assert!(refused(|config| config.heartbeat = ConfigDuration::seconds(6)).contains("session.heartbeat"));
    }
}
