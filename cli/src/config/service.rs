//! The section of one service: common keys, and its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use drystone_mesh::{
    config::{self, ConfigError, Dict, LayeredConfig},
    module::{Module, ModuleConfig},
};
use drystone_store::{DatabaseConfig, Location};
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
    database: Option<DatabaseConfig>,
    /// Its own keys.
    pub(crate) own: ModuleConfig,
}

/// The key that every service has.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenKey {
    /// Where it listens.
    listen: SocketAddr,
}

/// The section that every service with migrations has.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DatabaseSection {
    database: DatabaseConfig,
}

const LISTEN: &str = "listen";
const DATABASE: &str = "database";

/// The keys of former releases, and what replaces each.
const FORMER_KEYS: [(&str, &str); 2] =
    [("database_password_file", "database.password_file"), ("database_pool", "database.pool")];

/// The default of a module's section; `position` counts the modules before it without a port of their own.
pub(super) fn defaults(module: Module, position: u16) -> Result<Dict, ConfigError> {
    let port = module.port().unwrap_or(FIRST_PORT + position);
    let mut keys = config::defaults(&ListenKey { listen: (Ipv4Addr::LOCALHOST, port).into() })?;
    if !module.migrations().is_empty() {
        keys.extend(config::defaults(&DatabaseSection { database: DatabaseConfig::embedded(module.name()) })?);
    }
    keys.extend(module.defaults()?);
    Ok(keys)
}

impl ServiceConfig {
    /// Reads the section of a module.
    pub(super) fn read(module: Module, layers: &LayeredConfig) -> Result<Self, ConfigError> {
        let name = module.name();
        let ListenKey { listen } = layers.extract_section(name, |key| key == LISTEN)?;
        let database = if module.migrations().is_empty() { None } else { Some(read_database(name, layers)?) };
        let is_own = |key: &str| key != LISTEN && !(database.is_some() && key == DATABASE);
        let own = module.read(layers, &is_own)?;
        let this = Self { module, listen, database, own };
        if let Some(database) = this.database() {
            database.check(name).map_err(ConfigError::new)?;
        }
        Ok(this)
    }

    /// Its database, if it uses one.
    pub(crate) fn database(&self) -> Option<&DatabaseConfig> {
        self.database.as_ref().filter(|_| self.module.needs_database(&self.own))
    }

    /// Where its database is, if it uses one.
    pub(crate) fn location(&self, data_dir: &Path) -> Option<Location> {
        self.database().map(|database| database.location(self.module.name(), data_dir))
    }

    /// The section as a table.
    pub(super) fn shown(&self) -> Result<Dict, ConfigError> {
        let mut keys = config::defaults(&ListenKey { listen: self.listen })?;
        if let Some(database) = &self.database {
            keys.extend(config::defaults(&DatabaseSection { database: database.clone() })?);
        }
        keys.extend(self.own.masked().clone());
        Ok(keys)
    }
}

fn read_database(service: &'static str, layers: &LayeredConfig) -> Result<DatabaseConfig, ConfigError> {
    for (key, replacement) in FORMER_KEYS {
        layers.refuse_key(service, key, &format!("{service}.{replacement}"))?;
    }
    layers.refuse_value(service, DATABASE, &format!("{service}.database.url"))?;
    let DatabaseSection { database } = layers.extract_section(service, |key| key == DATABASE)?;
    Ok(database)
}
