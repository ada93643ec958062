//! The values of every source, from which each part of a configuration takes what is its own: the sections of a process
//! belong to modules that do not know each other.

use std::collections::BTreeMap;

use figment::{Figment, value::Value};
use serde::de::DeserializeOwned;

use super::{ConfigError, Dict, Flag, Layer, Sources, environment, file_layer};

/// The values of every source, the defaults first and what overrides them after that.
#[derive(Debug)]
pub struct Layers {
    layers: Vec<Layer>,
    defaults: Dict,
}

impl Layers {
    /// Reads the sources. The defaults name every key there is: sections, and the keys in them.
    ///
    /// # Errors
    /// The file cannot be read or is no TOML, a variable is not valid, or a section is unknown.
    pub fn read(sources: &Sources, defaults: Dict) -> Result<Self, ConfigError> {
        let mut layers = vec![Layer { name: "the defaults".to_owned(), values: defaults.clone() }];
        if let Some(path) = &sources.file {
            layers.push(file_layer(path)?);
        }
        layers.extend(environment::layers(&sources.environment, &defaults)?);
        for Flag { name, key, value } in &sources.flags {
            layers.push(Layer::of_one(format!("the flag {name}"), key, value.clone()));
        }
        let layers = Self { layers, defaults };
        layers.check_top_level()?;
        Ok(layers)
    }

    /// The whole, as one struct.
    ///
    /// # Errors
    /// A key is unknown, or a value is not valid.
    pub fn all<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        self.figment(|_, values| Some(values.clone())).extract().map_err(|error| self.error(error))
    }

    /// The keys at the top for which `is_wanted` holds, sections included.
    ///
    /// # Errors
    /// As [`Layers::all`].
    pub fn top<T: DeserializeOwned>(&self, is_wanted: impl Fn(&str) -> bool) -> Result<T, ConfigError> {
        self.figment(|_, values| Some(filtered(values, &is_wanted))).extract().map_err(|error| self.error(error))
    }

    /// The keys of one section for which `is_wanted` holds.
    ///
    /// # Errors
    /// As [`Layers::all`].
    pub fn section<T: DeserializeOwned>(
        &self,
        section: &str,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<T, ConfigError> {
        let own = |_: &str, values: &Dict| {
            let value = values.get(section)?;
            let value = match value {
                Value::Dict(tag, keys) => Value::Dict(*tag, filtered(keys, &is_wanted)),
                // Let it be refused as what it is.
                other => other.clone(),
            };
            Some(Dict::from([(section.to_owned(), value)]))
        };
        // As a member of a map, so that an error names the key from the top.
        let mut sections: BTreeMap<String, T> = self.figment(own).extract().map_err(|error| self.error(error))?;
        sections.remove(section).ok_or_else(|| ConfigError::new(format!("there is no section [{section}]")))
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
        self.refuse(section, key, replacement, |value| value.as_dict().is_none())
    }

    fn refuse(
        &self,
        section: &str,
        key: &str,
        replacement: &str,
        is_former: impl Fn(&Value) -> bool,
    ) -> Result<(), ConfigError> {
        for Layer { name, values } in &self.layers {
            let value = values.get(section).and_then(|section| section.as_dict()?.get(key));
            if value.is_some_and(&is_former) {
                return Err(ConfigError::new(format!("`{section}.{key}` in {name} is now `{replacement}`; rename it")));
            }
        }
        Ok(())
    }

    fn figment(&self, select: impl Fn(&str, &Dict) -> Option<Dict>) -> Figment {
        self.layers.iter().fold(Figment::new(), |figment, Layer { name, values }| match select(name, values) {
            Some(values) => figment.merge(Layer { name: name.clone(), values }),
            None => figment,
        })
    }

    /// A part takes only what it knows, so what nobody knows has to be found here.
    fn check_top_level(&self) -> Result<(), ConfigError> {
        for Layer { name, values } in &self.layers {
            if let Some(key) = values.keys().find(|key| !self.defaults.contains_key(*key)) {
                return Err(ConfigError::unknown_key(std::slice::from_ref(key), name, &[], &self.defaults));
            }
        }
        Ok(())
    }

    fn error(&self, error: figment::Error) -> ConfigError {
        ConfigError::from_figment(error, &self.defaults)
    }
}

fn filtered(values: &Dict, is_wanted: &impl Fn(&str) -> bool) -> Dict {
    values.iter().filter(|(key, _)| is_wanted(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}
