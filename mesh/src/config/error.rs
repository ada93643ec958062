//! Configuration errors, one sentence each.

use std::io;

use serde_json::Value;

use super::{
    Dict,
    value::{self, ErrorKind, ValueError},
};

/// The standard library's error for an invalid `SocketAddr`.
const SOCKET_ADDRESS_SYNTAX: &str = "invalid socket address syntax";

/// An invalid configuration. The message is one sentence that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// An error with this message, for the checks of a section.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    pub(super) fn unreadable(name: &str, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "create it, or name another with --config",
            io::ErrorKind::PermissionDenied => "give the user that runs drystone read permission",
            io::ErrorKind::InvalidData => "save it as UTF-8",
            _ => "name a readable file with --config",
        };
        Self(format!("the configuration file {name} cannot be read ({error}); {remedy}"))
    }

    /// The parser's error has several lines: the position is on the first, the cause on the last.
    pub(super) fn not_toml(name: &str, report: &str) -> Self {
        let mut lines = report.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let position = first.split_once(" at ").map_or(first, |(_, position)| position);
        let cause = lines.next_back().unwrap_or("syntax error");
        Self(format!("{name} is not valid TOML at {position}: {cause}; correct it"))
    }

    pub(super) fn of_value(error: ValueError, source: &str, defaults: &Dict) -> Self {
        let path = error.path.join(".");
        Self(match error.kind {
            ErrorKind::UnknownKey { expected } => unknown_key(&error.path, source, expected, defaults),
            ErrorKind::MissingKey(key) if path.is_empty() => format!("`{key}` is not set; set it"),
            ErrorKind::MissingKey(key) => format!("`{path}.{key}` is not set; set it"),
            // The value is not shown: it may be a secret.
            ErrorKind::InvalidType { actual, expected } => {
                format!("`{path}` in {source} must be {expected}, not {actual}; correct it")
            }
            ErrorKind::InvalidValue { expected } => format!("`{path}` in {source} must be {expected}; correct it"),
            ErrorKind::UnknownVariant { actual, expected } => {
                format!("`{path}` in {source} must be {}, not `{actual}`; correct it", either(expected))
            }
            ErrorKind::Other(message) if message == SOCKET_ADDRESS_SYNTAX => {
                format!("`{path}` in {source} must be an IP address with a port, such as 127.0.0.1:8080; correct it")
            }
            ErrorKind::Other(message) => format!("`{path}` in {source} is invalid: {message}"),
        })
    }

    pub(super) fn unknown_key(path: &[String], source: &str, expected: &[&str], defaults: &Dict) -> Self {
        Self(unknown_key(path, source, expected, defaults))
    }
}

/// The valid keys are taken from the defaults if they have the section: a section may be composed of several structs,
/// each of which knows only its own keys.
fn unknown_key(path: &[String], source: &str, expected: &[&str], defaults: &Dict) -> String {
    let (key, section) = (path.join("."), path.split_last().map_or(&[][..], |(_, section)| section));
    let valid = keys_of(section, defaults).unwrap_or_else(|| expected.to_vec()).join(", ");
    let scope = if section.is_empty() { String::new() } else { format!(" in [{}]", section.join(".")) };
    format!("`{key}` in {source} is not a known key; remove it, or use one of the keys{scope}: {valid}")
}

fn keys_of<'a>(section: &[String], defaults: &'a Dict) -> Option<Vec<&'a str>> {
    let table =
        if section.is_empty() { Some(defaults) } else { value::get(defaults, section).and_then(Value::as_object) };
    Some(table?.keys().map(String::as_str).collect())
}

fn either(valid: &[&str]) -> String {
    valid.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ")
}
