//! The section of one service: what every service has, and its own keys.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use drystone_mesh::{
    config::{self, ConfigError, Dict, Layers},
    module::{Module, Section},
};
use drystone_store::{Address, PoolConfig, Settings};
use serde::{Deserialize, Serialize};

/// The port of the first service.
const FIRST_PORT: u16 = 50051;

/// The section of one service.
#[derive(Debug)]
pub(crate) struct ServiceConfig {
    /// The service.
    pub(crate) module: Module,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    database: Option<DatabaseKeys>,
    /// Its own keys.
    pub(crate) own: Section,
}

/// The key that every service has.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenKey {
    /// Where it listens.
    listen: SocketAddr,
}

/// The keys that every service with a database has.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DatabaseKeys {
    /// An SQLite file, where a relative path starts at the data directory, or the URL of a PostgreSQL database.
    database: Address,
    /// A file with the password of that URL, where it holds none.
    database_password_file: Option<PathBuf>,
    /// How connections to a PostgreSQL server are used.
    database_pool: PoolConfig,
}

const LISTEN: &str = "listen";
const DATABASE: [&str; 3] = ["database", "database_password_file", "database_pool"];

/// The default of a module's section; `place` counts those before it that serve gRPC.
pub(super) fn defaults(module: Module, place: u16) -> Result<Dict, ConfigError> {
    let port = module.port().unwrap_or(FIRST_PORT + place);
    let mut keys = config::defaults(&ListenKey { listen: (Ipv4Addr::LOCALHOST, port).into() })?;
    if !module.migrations().is_empty() {
        let database = Address::file(format!("{}.db", module.name()));
        let pool = PoolConfig::default();
        keys.extend(config::defaults(&DatabaseKeys { database, database_password_file: None, database_pool: pool })?);
    }
    keys.extend(module.defaults()?);
    Ok(keys)
}

impl ServiceConfig {
    /// Reads the section of a module.
    pub(super) fn read(module: Module, layers: &Layers) -> Result<Self, ConfigError> {
        let name = module.name();
        let ListenKey { listen } = layers.section(name, |key| key == LISTEN)?;
        let is_database = |key: &str| DATABASE.contains(&key);
        let database = if module.migrations().is_empty() { None } else { Some(layers.section(name, is_database)?) };
        let is_own = |key: &str| key != LISTEN && !(database.is_some() && is_database(key));
        let own = module.read(layers, &is_own)?;
        let this = Self { module, listen, database, own };
        if let Some(settings) = this.database() {
            settings.check().map_err(ConfigError::new)?;
        }
        Ok(this)
    }

    /// Its database, if it uses one.
    pub(crate) fn database(&self) -> Option<Settings<'_>> {
        let DatabaseKeys { database, database_password_file, database_pool } =
            self.database.as_ref().filter(|_| self.module.needs_database(&self.own))?;
        Some(Settings {
            service: self.module.name(),
            address: database,
            password_file: database_password_file.as_deref(),
            pool: database_pool,
        })
    }

    /// The section as a table.
    pub(super) fn shown(&self) -> Result<Dict, ConfigError> {
        let mut keys = config::defaults(&ListenKey { listen: self.listen })?;
        if let Some(database) = &self.database {
            keys.extend(config::defaults(database)?);
        }
        keys.extend(self.own.shown().clone());
        Ok(keys)
    }
}
