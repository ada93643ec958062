//! The section `[property]` of the configuration.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use drystone_mesh::config::check_database;
use serde::{Deserialize, Serialize};

/// How the property service runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens for gRPC.
    pub listen: SocketAddr,
    /// Its database file; a relative path starts at the data directory.
    pub database: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 50054).into(), database: "property.db".into() }
    }
}

impl Config {
    /// What types cannot say of the values.
    ///
    /// # Errors
    /// A sentence that names the key and says what to write.
    pub fn check(&self) -> Result<(), String> {
        check_database("property", &self.database)
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
        let config = Config { database: "/".into(), ..Config::default() };
        assert!(config.check().unwrap_err().contains("property.database"));
    }
}
