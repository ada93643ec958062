//! The database section of a service's configuration.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use drystone_mesh::config::ConfigDuration;
use serde::{Deserialize, Serialize};

use super::{Address, Location, location::PostgresLocation};

/// The upper bound of `connections`.
const MAX_CONNECTIONS: u32 = 1000;

/// The upper bound of `acquire_timeout` and `statement_timeout`.
const MAX_TIMEOUT: ConfigDuration = ConfigDuration::minutes(10);

/// The section `[NAME.database]` of a service that stores data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// The path of an SQLite file, relative to the data directory, or the URL of a PostgreSQL database.
    pub url: Address,
    /// A file that contains the password, if the URL contains none. It is read for each connection.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The connection pool of a PostgreSQL database. SQLite ignores it.
    #[serde(default)]
    pub pool: PoolConfig,
}

/// The section `[NAME.database.pool]`: the connections of this process to a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Maximum number of connections. They are opened on demand.
    pub connections: u32,
    /// How long a call waits for a connection, connecting included.
    pub acquire_timeout: ConfigDuration,
    /// How long one statement may run before the server cancels it.
    pub statement_timeout: ConfigDuration,
    /// How long an idle connection stays open.
    pub idle_timeout: ConfigDuration,
    /// The age at which a connection is replaced, so that DNS changes take effect.
    pub max_lifetime: ConfigDuration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connections: 10,
            acquire_timeout: ConfigDuration::seconds(2),
            statement_timeout: ConfigDuration::seconds(5),
            idle_timeout: ConfigDuration::minutes(5),
            max_lifetime: ConfigDuration::minutes(30),
        }
    }
}

impl DatabaseConfig {
    /// The default: an SQLite file with the name of the service.
    #[must_use]
    pub fn embedded(service: &str) -> Self {
        Self { url: Address::file(format!("{service}.db")), password_file: None, pool: PoolConfig::default() }
    }

    /// Checks what types cannot express. `service` is the name of the section that the values are from.
    ///
    /// # Errors
    /// A sentence that names the key and says what to write.
    pub fn check(&self, service: &str) -> Result<(), String> {
        let Self { url, password_file, pool } = self;
        let section = format!("{service}.database");
        if let Address::File(path) = url {
            if path.file_name().is_none() {
                return Err(format!(
                    "{section}.url must name a file, such as `{service}.db`, or be a URL that begins with postgres://"
                ));
            }
            if password_file.is_some() {
                return Err(format!(
                    "{section}.password_file is for a PostgreSQL database, but {section}.url names a file; remove one"
                ));
            }
        }
        if pool.connections == 0 || pool.connections > MAX_CONNECTIONS {
            return Err(format!("{section}.pool.connections must be from 1 to {MAX_CONNECTIONS}, such as 10"));
        }
        for (key, value, max, example) in [
            ("acquire_timeout", pool.acquire_timeout, MAX_TIMEOUT, "2s"),
            ("statement_timeout", pool.statement_timeout, MAX_TIMEOUT, "5s"),
            ("idle_timeout", pool.idle_timeout, ConfigDuration::days(1), "5m"),
            ("max_lifetime", pool.max_lifetime, ConfigDuration::days(1), "30m"),
        ] {
            if value.duration() == Duration::ZERO || value > max {
                return Err(format!("{section}.pool.{key} must be more than 0 and at most {max}, such as `{example}`"));
            }
        }
        Ok(())
    }

    /// The database of this service that the values describe.
    #[must_use]
    pub fn location(&self, service: &'static str, data_dir: &Path) -> Location {
        match &self.url {
            Address::File(path) => Location::File(data_dir.join(path)),
            Address::Server(url) => Location::Server(PostgresLocation {
                service,
                url: url.clone(),
                password_file: self.password_file.clone(),
                pool: self.pool.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, password_file: Option<&str>, change: fn(&mut PoolConfig)) -> Result<(), String> {
        let url = Address::try_from(url.to_owned()).unwrap();
        let mut config =
            DatabaseConfig { url, password_file: password_file.map(Into::into), pool: PoolConfig::default() };
        change(&mut config.pool);
        config.check("user")
    }

    #[test]
    fn invalid_values_are_refused_by_their_key() {
        let url = "postgres://ada@db/mesh";
        check(url, Some("password"), |_| {}).unwrap();
        check("user.db", None, |_| {}).unwrap();
        for (fault, key) in [
            (check("/", None, |_| {}), "user.database.url must name a file"),
            (check("", None, |_| {}), "user.database.url must name a file"),
            (check("..", None, |_| {}), "user.database.url must name a file"),
            (check("user.db", Some("password"), |_| {}), "user.database.password_file is for a PostgreSQL database"),
            (check(url, None, |pool| pool.connections = 0), "user.database.pool.connections"),
            (check(url, None, |pool| pool.connections = 1001), "user.database.pool.connections"),
            (
                check(url, None, |pool| pool.acquire_timeout = ConfigDuration::seconds(0)),
                "user.database.pool.acquire_timeout",
            ),
            (
                check(url, None, |pool| pool.statement_timeout = ConfigDuration::hours(1)),
                "user.database.pool.statement_timeout",
            ),
            (
                check(url, None, |pool| pool.idle_timeout = ConfigDuration::seconds(0)),
                "user.database.pool.idle_timeout",
            ),
            (check(url, None, |pool| pool.max_lifetime = ConfigDuration::days(2)), "user.database.pool.max_lifetime"),
        ] {
            let fault = fault.unwrap_err();
            assert!(fault.starts_with(key), "{fault}");
        }
    }
}
