//! `template.toml`.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
};

use serde::Deserialize;

use super::{
    error::Problem,
    parameter::{MAX_PARAMETERS, MAX_PARAMETERS_BYTES, Parameter, ParameterError},
};
use crate::channel::Channel;

/// The category that users cannot switch off.
pub const SECURITY: &str = "security";
/// The variables that every template has.
pub const COMMON_VARIABLES: [&str; 2] = ["name", "product"];
/// The maximum length of a name in bytes.
pub const MAX_NAME_LENGTH: usize = 32;

/// The definition of a template.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub category: Name,
    pub channels: BTreeSet<Channel>,
    pub senders: BTreeSet<Name>,
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
}

impl Definition {
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let definition: Self = toml::from_str(text).map_err(|error| Problem::toml(text, &error))?;
        if definition.channels.is_empty() {
            return Err(Problem::NoChannels);
        }
        if definition.senders.is_empty() {
            return Err(Problem::NoSenders);
        }
        if definition.parameters.len() > MAX_PARAMETERS {
            return Err(Problem::TooManyParameters);
        }
        for (name, parameter) in &definition.parameters {
            if !is_name(name) || name.contains('-') || COMMON_VARIABLES.contains(&name.as_str()) {
                return Err(Problem::ParameterName(name.clone()));
            }
            if !parameter.has_valid_max_length() {
                return Err(Problem::MaxLength(name.clone()));
            }
        }
        definition.check(&definition.samples()).map_err(Problem::Sample)?;
        Ok(definition)
    }

    pub fn samples(&self) -> BTreeMap<String, String> {
        self.parameters.iter().map(|(name, parameter)| (name.clone(), String::from(&*parameter.sample))).collect()
    }

    pub fn is_secret(&self, parameter: &str) -> bool {
        self.parameters.get(parameter).is_some_and(|parameter| parameter.secret)
    }

    /// Checks that exactly the parameters of the template are given, with valid values.
    pub fn check(&self, given: &BTreeMap<String, String>) -> Result<(), ParameterError> {
        if given.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_PARAMETERS_BYTES {
            return Err(ParameterError::TooLarge);
        }
        if let Some(name) = given.keys().find(|name| !self.parameters.contains_key(*name)) {
            // It is not ours: bounded, and nothing that could change how a log shows it.
            let shown: String = name.escape_debug().take(MAX_NAME_LENGTH).collect();
            return Err(ParameterError::Unknown(shown));
        }
        for (name, parameter) in &self.parameters {
            let value = given.get(name).ok_or_else(|| ParameterError::Missing(name.clone()))?;
            parameter.check(name, value)?;
        }
        Ok(())
    }
}

/// A name of a category or a workload: a letter, then up to 31 of `a-z 0-9 _ -`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(Box<str>);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_name(&text) { Ok(Self(text.into())) } else { Err("a name is a letter, then up to 31 of `a-z 0-9 _ -`") }
    }
}

/// Whether a text is a name of a template, a category or a workload.
pub fn is_name(text: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    text.len() <= MAX_NAME_LENGTH
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(is_valid)
}
