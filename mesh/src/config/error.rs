//! What can be wrong with a configuration, in one sentence each.

use std::io;

use serde_json::Value;

use super::{
    Dict,
    value::{self, ErrorKind, ValueError},
};

/// What the standard library says where a `SocketAddr` is wanted.
const NO_ADDRESS: &str = "invalid socket address syntax";

/// A configuration that cannot be used. Its text is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// A configuration that cannot be used for this reason; for checks that a section makes of its own.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    pub(super) fn unreadable(name: &str, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "create it, or name another with --config",
            io::ErrorKind::PermissionDenied => "let the user that runs drystone read it",
            io::ErrorKind::InvalidData => "save it as UTF-8",
            _ => "name a readable file with --config",
        };
        Self(format!("the configuration file {name} cannot be read ({error}); {remedy}"))
    }

    /// The parser draws a picture of several lines: the place is on the first of them, what is wrong on the last.
    pub(super) fn not_toml(name: &str, picture: &str) -> Self {
        let mut lines = picture.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let place = first.split_once(" at ").map_or(first, |(_, place)| place);
        let wrong = lines.next_back().unwrap_or("not as it should be");
        Self(format!("{name} is not valid TOML at {place}: {wrong}; correct it there"))
    }

    pub(super) fn of_value(error: ValueError, source: &str, defaults: &Dict) -> Self {
        let path = error.path.join(".");
        Self(match error.kind {
            ErrorKind::UnknownKey { expected } => unknown_key(&error.path, source, expected, defaults),
            ErrorKind::MissingKey(key) if path.is_empty() => format!("`{key}` is not set; set it"),
            ErrorKind::MissingKey(key) => format!("`{path}.{key}` is not set; set it"),
            // The value is not repeated: it may be a secret.
            ErrorKind::InvalidType { actual, expected } => {
                format!("`{path}` in {source} has to be {expected}, and is {actual}; correct it")
            }
            ErrorKind::InvalidValue { expected } => format!("`{path}` in {source} has to be {expected}; correct it"),
            ErrorKind::UnknownVariant { actual, expected } => {
                format!("`{path}` in {source} has to be {}, and is `{actual}`; correct it", either(expected))
            }
            ErrorKind::Other(message) if message == NO_ADDRESS => {
                format!("`{path}` in {source} has to be an IP address with a port, such as 127.0.0.1:8080; correct it")
            }
            ErrorKind::Other(message) => format!("`{path}` in {source} is wrong: {message}"),
        })
    }

    pub(super) fn unknown_key(path: &[String], source: &str, expected: &[&str], defaults: &Dict) -> Self {
        Self(unknown_key(path, source, expected, defaults))
    }
}

/// The valid keys are taken from the defaults where they have the section, since one may be put together from several
/// structs of which each knows its own keys alone.
fn unknown_key(path: &[String], source: &str, expected: &[&str], defaults: &Dict) -> String {
    let (key, section) = (path.join("."), path.split_last().map_or(&[][..], |(_, section)| section));
    let valid = keys_of(section, defaults).unwrap_or_else(|| expected.to_vec()).join(", ");
    let place = if section.is_empty() { String::new() } else { format!(" in [{}]", section.join(".")) };
    format!("`{key}` in {source} is no known key; remove it, or use one of the keys{place}: {valid}")
}

fn keys_of<'a>(section: &[String], defaults: &'a Dict) -> Option<Vec<&'a str>> {
    let table =
        if section.is_empty() { Some(defaults) } else { value::get(defaults, section).and_then(Value::as_object) };
    Some(table?.keys().map(String::as_str).collect())
}

fn either(valid: &[&str]) -> String {
    valid.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ")
}
