//! The values of all sources, from which each module extracts its own section: the modules of a process do not know
//! each other.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    ConfigError, ConfigLayer, ConfigSources, Dict, Flag, environment, file_layer,
    value::{self, ValueDeserializer, ValueError},
};

/// The values of all sources in ascending precedence, the defaults first.
pub struct LayeredConfig {
    layers: Vec<ConfigLayer>,
    merged: Dict,
    defaults: Dict,
}

/// Without the values, which may be secrets.
impl fmt::Debug for LayeredConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayeredConfig").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl LayeredConfig {
    /// Reads the sources. The defaults name every key there is: sections, and the keys in them.
    ///
    /// # Errors
    /// The file cannot be read or is not TOML, a variable is not valid, or a section is unknown.
    pub fn read(sources: &ConfigSources, defaults: Dict) -> Result<Self, ConfigError> {
        let mut layers = vec![ConfigLayer { name: "the defaults".to_owned(), values: defaults.clone() }];
        if let Some(path) = &sources.file {
            layers.push(file_layer(path)?);
        }
        layers.extend(environment::layers(&sources.environment, &defaults)?);
        for Flag { name, key, value } in &sources.flags {
            layers.push(ConfigLayer::single(format!("the flag {name}"), key, value.clone()));
        }
        let mut merged = Dict::new();
        for ConfigLayer { values, .. } in &layers {
            value::merge(&mut merged, values);
        }
        let layers = Self { layers, merged, defaults };
        layers.check_top_level()?;
        Ok(layers)
    }

    /// Extracts the whole configuration as one struct.
    ///
    /// # Errors
    /// A key is unknown, or a value is invalid.
    pub fn extract<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        self.extract_top_level(|_| true)
    }

    /// Extracts the top-level keys, sections included, that `is_wanted` selects.
    ///
    /// # Errors
    /// As [`LayeredConfig::extract`].
    pub fn extract_top_level<T: DeserializeOwned>(&self, is_wanted: impl Fn(&str) -> bool) -> Result<T, ConfigError> {
        let values = Value::Object(filtered(&self.merged, &is_wanted));
        T::deserialize(ValueDeserializer(&values)).map_err(|error| self.error(error))
    }

    /// Extracts the keys of one section that `is_wanted` selects.
    ///
    /// # Errors
    /// As [`LayeredConfig::extract`].
    pub fn extract_section<T: DeserializeOwned>(
        &self,
        section: &str,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<T, ConfigError> {
        let filtered = match self.merged.get(section) {
            Some(Value::Object(keys)) => Value::Object(filtered(keys, &is_wanted)),
            // Deserialization refuses it with what it is.
            Some(other) => other.clone(),
            None => return Err(ConfigError::new(format!("there is no section [{section}]"))),
        };
        T::deserialize(ValueDeserializer(&filtered)).map_err(|error| self.error(error.under(section)))
    }

    /// Refuses a key of a former release.
    ///
    /// # Errors
    /// A source sets the key: the error names the replacement.
    pub fn refuse_key(&self, section: &str, key: &str, replacement: &str) -> Result<(), ConfigError> {
        self.refuse(section, key, replacement, |_| true)
    }

    /// Refuses a single value where a former release had one, and a section is now.
    ///
    /// # Errors
    /// A source sets the key to anything but a table: the error names the key that replaces it.
    pub fn refuse_value(&self, section: &str, key: &str, replacement: &str) -> Result<(), ConfigError> {
        self.refuse(section, key, replacement, |value| !value.is_object())
    }

    fn refuse(
        &self,
        section: &str,
        key: &str,
        replacement: &str,
        is_former: impl Fn(&Value) -> bool,
    ) -> Result<(), ConfigError> {
        for ConfigLayer { name, values } in &self.layers {
            let value = value::get(values, &[section, key]);
            if value.is_some_and(&is_former) {
                return Err(ConfigError::new(format!("`{section}.{key}` in {name} is now `{replacement}`; rename it")));
            }
        }
        Ok(())
    }

    /// Rejects unknown top-level keys: each extraction reads only the keys that it knows.
    fn check_top_level(&self) -> Result<(), ConfigError> {
        for ConfigLayer { name, values } in &self.layers {
            if let Some(key) = values.keys().find(|key| !self.defaults.contains_key(*key)) {
                return Err(ConfigError::unknown_key(std::slice::from_ref(key), name, &[], &self.defaults));
            }
        }
        Ok(())
    }

    fn error(&self, error: ValueError) -> ConfigError {
        // The last layer that has the value is the one that counts.
        let source = self.layers.iter().rfind(|layer| value::get(&layer.values, &error.path).is_some());
        ConfigError::of_value(error, source.map_or("the configuration", |layer| &layer.name), &self.defaults)
    }
}

fn filtered(values: &Dict, is_wanted: &impl Fn(&str) -> bool) -> Dict {
    values.iter().filter(|(key, _)| is_wanted(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}
