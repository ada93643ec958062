//! Configuration: defaults < file (TOML) < environment < flags.
//!
//! A service declares its section as a plain struct with `#[serde(default, deny_unknown_fields)]`; [`load`] fills it.
//! An error is one sentence that names the key, its source and the valid values.
//!
//! An environment variable is in upper case with two underscores between section and key: `DRYSTONE_AUTH__LISTEN` sets
//! `listen` in `[auth]`.

mod duration;
mod environment;
mod error;
mod layered;
mod secret;
mod value;

use std::{
    ffi::OsString,
    fmt::{self, Display},
    fs,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use self::{
    duration::{ConfigDuration, ParseDurationError},
    error::ConfigError,
    layered::LayeredConfig,
    secret::Secret,
    value::Dict,
};
pub use crate::telemetry::LogConfig;

/// Where the values come from, beside the defaults.
#[derive(Clone, Default)]
pub struct ConfigSources {
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    flags: Vec<Flag>,
}

#[derive(Clone)]
struct Flag {
    name: &'static str,
    key: &'static str,
    value: Value,
}

impl ConfigSources {
    /// The defaults alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads this file, which must exist.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Reads these variables, as far as they begin with `DRYSTONE_`; a process passes `std::env::vars_os()`.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.environment = variables.into_iter().collect();
        self
    }

    /// Sets `key`, sections separated by dots, to what the command-line flag `name` says.
    #[must_use]
    pub fn flag(mut self, name: &'static str, key: &'static str, value: impl Into<Value>) -> Self {
        self.flags.push(Flag { name, key, value: value.into() });
        self
    }
}

/// Loads a configuration into one struct.
///
/// # Errors
/// The file cannot be read or is not TOML, a key is unknown, or a value is invalid.
pub fn load<T: Default + Serialize + DeserializeOwned>(sources: &ConfigSources) -> Result<T, ConfigError> {
    LayeredConfig::read(sources, defaults(&T::default())?)?.extract()
}

/// The values of a struct, as the defaults of a [`LayeredConfig`].
///
/// # Errors
/// The struct does not serialize to a table.
pub fn defaults<T: Serialize>(values: &T) -> Result<Dict, ConfigError> {
    match serde_json::to_value(values) {
        Ok(Value::Object(dict)) => Ok(dict),
        Ok(_) => Err(ConfigError::new("the configuration is not a table; this is a bug")),
        Err(error) => Err(ConfigError::new(format!("the defaults cannot be serialized: {error}"))),
    }
}

/// Serializes a configuration as TOML. A [`Secret`] is masked.
///
/// # Errors
/// The configuration has a value that TOML cannot represent.
pub fn show<T: Serialize>(config: &T) -> Result<String, ConfigError> {
    let failed =
        |error: &dyn Display| ConfigError::new(format!("the configuration cannot be serialized as TOML: {error}"));
    let values = serde_json::to_value(config).map_err(|error| failed(&error))?;
    toml::to_string(&value::without_null(values)).map_err(|error| failed(&error))
}

fn file_layer(path: &Path) -> Result<ConfigLayer, ConfigError> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| ConfigError::unreadable(&name, &error))?;
    let values: toml::Table =
        text.parse().map_err(|error: toml::de::Error| ConfigError::not_toml(&name, &error.to_string()))?;
    Ok(ConfigLayer { name, values: value::table_from_toml(values) })
}

/// The values of one source, with the name that errors show for it.
#[derive(Clone)]
struct ConfigLayer {
    name: String,
    values: Dict,
}

/// Without the values, which may be secrets.
impl fmt::Debug for ConfigSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigSources").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Without the values, which may be secrets.
impl fmt::Debug for ConfigLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigLayer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ConfigLayer {
    fn single(name: String, path: &str, value: Value) -> Self {
        Self { name, values: value::nest(path, value) }
    }
}

#[cfg(test)]
mod tests;
