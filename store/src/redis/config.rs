//! The section `[redis]` of the configuration.

use std::{path::PathBuf, time::Duration};

use drystone_mesh::config::{ConfigDuration, Secret};
use serde::{Deserialize, Serialize};

use super::servers::Servers;

/// The longest time limit that can be configured.
const MAX_TIMEOUT: ConfigDuration = ConfigDuration::seconds(5);

/// Where Redis is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its URL, `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or `rediss://...` for TLS. Nodes of a Cluster are divided by
    /// commas; one is enough, the others are asked for.
    pub url: Secret,
    /// A file with the password, where the URL holds none. It is read again for each connection.
    pub password_file: Option<PathBuf>,
    /// Whether it is a Cluster.
    pub cluster: bool,
    /// The roots that its certificate is checked against, as PEM; the system's, if there are none.
    pub ca: PathBuf,
    /// What every key begins with.
    pub prefix: String,
    /// How long a command may take.
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
    /// What types cannot say of the values.
    ///
    /// # Errors
    /// A sentence that names the key and says what to write.
    pub fn check(&self) -> Result<(), String> {
        if self.prefix.contains(['{', '}']) {
            return Err("redis.prefix must not hold `{` or `}`, which mark what places a key in a Cluster".to_owned());
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
    fn what_cannot_work_is_refused_by_its_key_and_the_password_is_not_told() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(refused(|config| config.prefix = "a{b".to_owned()).contains("redis.prefix"));
        assert!(refused(|config| config.timeout = ConfigDuration::seconds(0)).contains("redis.timeout"));
        assert!(refused(|config| config.timeout = ConfigDuration::seconds(6)).contains("redis.timeout"));
        for url in ["localhost:6379", "http://:hunter2@localhost", "redis://:hunter2@", "redis://a,redis://b"] {
            let mut config = Config { url: url.to_owned().into(), ..Config::default() };
            let refusal = config.check().unwrap_err();
            assert!(refusal.contains("redis.url") && !refusal.contains("hunter2"), "{url}: {refusal}");
            config.cluster = true;
            assert_eq!(config.check().is_ok(), url == "redis://a,redis://b", "{url}");
        }
    }

    #[test]
    fn a_password_stands_in_the_url_or_in_a_file() {
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
            let refusal = with_file(both).unwrap_err();
            assert!(refusal.contains("redis.password_file") && !refusal.contains("hunter2"), "{both}: {refusal}");
        }
    }
}
