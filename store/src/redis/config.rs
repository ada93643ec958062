//! The section `[redis]` of the configuration.

use std::{path::PathBuf, time::Duration};

use drystone_mesh::config::{ConfigDuration, Secret};
use serde::{Deserialize, Serialize};

use super::servers::Servers;

/// The longest configurable timeout.
const MAX_TIMEOUT: ConfigDuration = ConfigDuration::seconds(5);

/// How to connect to Redis.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The URL, `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or `rediss://...` for TLS. Nodes of a Cluster are separated
    /// by commas; one is enough, the others are discovered.
    pub url: Secret,
    /// A file with the password, if it is not in the URL. It is read for each new connection.
    pub password_file: Option<PathBuf>,
    /// Whether this is a Redis Cluster.
    pub cluster: bool,
    /// A PEM file with the root certificates for TLS; empty for those of the system.
    pub ca: PathBuf,
    /// The prefix of every key.
    pub prefix: String,
    /// The timeout of a command.
    pub timeout: ConfigDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            password_file: None,
            cluster: false,
            ca: PathBuf::new(),
            prefix: "drystone:".to_owned(),
            timeout: ConfigDuration::millis(50),
        }
    }
}

impl Config {
    /// Validates what the types cannot express.
    ///
    /// # Errors
    /// A sentence that names the key and the valid values.
    pub fn check(&self) -> Result<(), String> {
        if self.prefix.contains(['{', '}']) {
            return Err(
                "redis.prefix must not contain `{` or `}`, which delimit the hash tag of a key in a Cluster".to_owned()
            );
        }
        if self.timeout.duration() == Duration::ZERO || self.timeout > MAX_TIMEOUT {
            return Err(format!("redis.timeout must be more than 0 and at most {MAX_TIMEOUT}, such as `50ms`"));
        }
        if self.url.is_empty() { Ok(()) } else { Servers::check(self).map_err(|error| error.to_string()) }
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
    fn an_invalid_value_is_rejected_with_its_key_and_without_the_password() {
        let rejected = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(rejected(|config| config.prefix = "a{b".to_owned()).contains("redis.prefix"));
        assert!(rejected(|config| config.timeout = ConfigDuration::seconds(0)).contains("redis.timeout"));
        assert!(rejected(|config| config.timeout = ConfigDuration::seconds(6)).contains("redis.timeout"));
        for url in ["localhost:6379", "http://:hunter2@localhost", "redis://:hunter2@", "redis://a,redis://b"] {
            let mut config = Config { url: url.to_owned().into(), ..Config::default() };
            let error = config.check().unwrap_err();
            assert!(error.contains("redis.url") && !error.contains("hunter2"), "{url}: {error}");
            config.cluster = true;
            assert_eq!(config.check().is_ok(), url == "redis://a,redis://b", "{url}");
        }
    }

    #[test]
    fn a_password_is_in_the_url_or_in_a_file_and_not_in_both() {
        let with_file = |url: &str| {
            let password_file = Some("password".into());
            Config { url: url.to_owned().into(), password_file, cluster: true, ..Config::default() }.check()
        };
        for valid in ["redis://a", "redis://ada@a", "rediss://ada@a,rediss://ada@b", "unix:///a?user=ada"] {
            with_file(valid).unwrap();
        }
        for both in
            ["redis://:hunter2@a", "redis://ada:hunter2@a", "redis://a,redis://:hunter2@b", "unix:///a?pass=hunter2"]
        {
            let error = with_file(both).unwrap_err();
            assert!(error.contains("redis.password_file") && !error.contains("hunter2"), "{both}: {error}");
        }
    }
}
