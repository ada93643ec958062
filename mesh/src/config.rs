//! Configuration: defaults < file (TOML) < environment < flags.
//!
//! A service describes its section as a plain struct with `#[serde(default, deny_unknown_fields)]`; [`load`] fills it.
//! Whatever is wrong is one sentence that names the key, where it was set, and what is valid there.
//!
//! A key of the environment is written in capitals with two underscores between section and key:
//! `DRYSTONE_AUTH__LISTEN` sets `listen` in `[auth]`.

mod environment;
mod error;
mod layers;
mod secret;
mod span;
mod value;

use std::{
    ffi::OsString,
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use self::{
    error::ConfigError,
    layers::Layers,
    secret::Secret,
    span::{Span, SpanError},
    value::Dict,
};
pub use crate::telemetry::LogConfig;

/// Where the values come from, beside the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    flags: Vec<Flag>,
}

#[derive(Debug, Clone)]
struct Flag {
    name: &'static str,
    key: &'static str,
    value: Value,
}

impl Sources {
    /// The defaults alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads this file, which has to be there.
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

/// Puts a configuration of one struct together.
///
/// # Errors
/// The file cannot be read or is no TOML, a key is unknown, or a value is not valid.
pub fn load<T: Default + Serialize + DeserializeOwned>(sources: &Sources) -> Result<T, ConfigError> {
    Layers::read(sources, defaults(&T::default())?)?.all()
}

/// The values of a struct as [`Layers`] take them for defaults.
///
/// # Errors
/// The struct is no table.
pub fn defaults<T: Serialize>(values: &T) -> Result<Dict, ConfigError> {
    match serde_json::to_value(values) {
        Ok(Value::Object(dict)) => Ok(dict),
        Ok(_) => Err(ConfigError::new("the configuration is no table; this is a fault of the program")),
        Err(error) => Err(ConfigError::new(format!("the defaults cannot be written: {error}"))),
    }
}

/// The configuration as a TOML file. A [`Secret`] in it is masked.
///
/// # Errors
/// The configuration holds something that TOML cannot say.
pub fn show<T: Serialize>(config: &T) -> Result<String, ConfigError> {
    let failed = |error: &dyn Display| ConfigError::new(format!("the configuration cannot be shown: {error}"));
    let values = serde_json::to_value(config).map_err(|error| failed(&error))?;
    toml::to_string(&value::without_null(values)).map_err(|error| failed(&error))
}

fn file_layer(path: &Path) -> Result<Layer, ConfigError> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| ConfigError::unreadable(&name, &error))?;
    let values: toml::Table =
        text.parse().map_err(|error: toml::de::Error| ConfigError::not_toml(&name, &error.to_string()))?;
    Ok(Layer { name, values: value::table_from_toml(values) })
}

/// Values of one source, under the name by which an error calls it.
#[derive(Debug, Clone)]
struct Layer {
    name: String,
    values: Dict,
}

impl Layer {
    fn of_one(name: String, path: &str, value: Value) -> Self {
        Self { name, values: value::nest(path, value) }
    }
}

#[cfg(test)]
mod tests;
