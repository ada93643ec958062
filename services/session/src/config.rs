//! The section `[session]` of the configuration.

use std::time::Duration;

use drystone_mesh::{config::ConfigDuration, page::MAX_PAGE_SIZE};
use serde::{Deserialize, Serialize};

/// The longest lifetime that can be configured.
const MAX_LIFETIME: ConfigDuration = ConfigDuration::days(3650);

/// Watchers close a connection that is silent for 10 s: heartbeats must be well below that.
const MAX_HEARTBEAT_INTERVAL: ConfigDuration = ConfigDuration::seconds(5);

/// The configuration of the session service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The store of sessions and revocations.
    pub store: StoreKind,
    /// How long a session lasts without a refresh.
    pub idle_timeout: ConfigDuration,
    /// The maximum lifetime of a session.
    pub lifetime: ConfigDuration,
    /// How many sessions one user may have. A new one ends the one that has been unused for the longest time.
    pub max_sessions: u32,
    /// How long after a rotation the previous refresh token gets the same successor, in case the response was lost. Later it
    /// gets a new one, as long as its successor was not used.
    pub rotation_grace: ConfigDuration,
    /// Whether a session ends when its refresh token is presented twice on consecutive rotations: two clients may share it,
    /// or the network lost two responses.
    pub end_shared: bool,
    /// The maximum lifetime of an access token in any service's configuration: revocations are kept that long.
    pub token_lifetime_max: ConfigDuration,
    /// How long a revoking call waits for the watchers to acknowledge the revocation.
    pub acknowledgement_timeout: ConfigDuration,
    /// The interval between heartbeats to a watcher.
    pub heartbeat: ConfigDuration,
}

/// The kind of store for sessions and revocations.
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
            max_sessions: 100,
            rotation_grace: ConfigDuration::seconds(10),
            end_shared: false,
            token_lifetime_max: ConfigDuration::hours(1),
            acknowledgement_timeout: ConfigDuration::millis(250),
            heartbeat: ConfigDuration::seconds(2),
        }
    }
}

impl Config {
    /// Validates what the types cannot express.
    ///
    /// # Errors
    /// A sentence that names the key and the valid values.
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
        if !(1..=MAX_PAGE_SIZE).contains(&self.max_sessions) {
            return Err(format!("session.max_sessions must be from 1 to {MAX_PAGE_SIZE}"));
        }
        if self.rotation_grace >= self.idle_timeout {
            return Err(format!(
                "session.rotation_grace must be less than session.idle_timeout, which is {}",
                self.idle_timeout
            ));
        }
        if self.heartbeat > MAX_HEARTBEAT_INTERVAL {
            return Err(format!("session.heartbeat must be at most {MAX_HEARTBEAT_INTERVAL}"));
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
    fn an_invalid_value_is_rejected_with_its_key() {
        let rejected = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(rejected(|config| config.idle_timeout = ConfigDuration::seconds(0)).contains("session.idle_timeout"));
        assert!(
            rejected(|config| config.idle_timeout = ConfigDuration::days(91))
                .contains("session.lifetime, which is 90d")
        );
        assert!(rejected(|config| config.lifetime = ConfigDuration::days(9999)).contains("session.lifetime"));
        assert!(rejected(|config| config.rotation_grace = ConfigDuration::days(14)).contains("session.rotation_grace"));
        assert!(
            rejected(|config| config.token_lifetime_max = ConfigDuration::seconds(0))
                .contains("session.token_lifetime_max")
        );
        assert!(rejected(|config| config.max_sessions = 0).contains("session.max_sessions"));
        assert!(rejected(|config| config.max_sessions = 201).contains("session.max_sessions"));
        assert!(rejected(|config| config.heartbeat = ConfigDuration::seconds(6)).contains("session.heartbeat"));
    }
}
