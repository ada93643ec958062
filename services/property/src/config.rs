//! The section `[property]` of the configuration.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use drystone_mesh::store::{Address, PoolConfig, Settings};
use serde::{Deserialize, Serialize};

/// How the property service runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens for gRPC.
    pub listen: SocketAddr,
    /// Its database: an SQLite file, where a relative path starts at the data directory, or the URL of a PostgreSQL
    /// database.
    pub database: Address,
    /// A file with the password of that URL, where it holds none.
    pub database_password_file: Option<PathBuf>,
    /// How connections to a PostgreSQL server are used.
    pub database_pool: PoolConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 50054).into(),
            database: Address::file("property.db"),
            database_password_file: None,
            database_pool: PoolConfig::default(),
        }
    }
}

impl Config {
    /// What types cannot say of the values.
    ///
    /// # Errors
    /// A sentence that names the key and says what to write.
    pub fn check(&self) -> Result<(), String> {
        self.database().check()
    }

    /// Its database, and how to use it.
    #[must_use]
    pub fn database(&self) -> Settings<'_> {
        Settings {
            service: crate::NAME,
            address: &self.database,
            password_file: self.database_password_file.as_deref(),
            pool: &self.database_pool,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_lawful() {
        Config::default().check().unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        let config = Config { database: Address::file("/"), ..Config::default() };
        assert!(config.check().unwrap_err().contains("property.database"));
    }
}
