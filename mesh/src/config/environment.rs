//! Environment variables as a source of configuration.

use std::ffi::OsString;

use serde_json::Value;

use super::{ConfigError, ConfigLayer, Dict, value};

const PREFIX: &str = "DRYSTONE_";
/// Read by the command line, which locates the configuration file with it.
const FILE_KEY: &str = "CONFIG";

/// Returns one layer for each variable, so that an error can name the variable.
pub(super) fn layers(variables: &[(OsString, OsString)], defaults: &Dict) -> Result<Vec<ConfigLayer>, ConfigError> {
    let mut layers = Vec::new();
    for (name, value) in variables {
        let Some(key) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if key == FILE_KEY || is_service_link(key) {
            continue;
        }
        let name = format!("the environment variable {PREFIX}{key}");
        let Some(value) = value.to_str() else {
            return Err(ConfigError::new(format!("{name} is not valid UTF-8; set it again")));
        };
        let path = key.to_ascii_lowercase().replace("__", ".");
        if path.split('.').any(str::is_empty) {
            return Err(ConfigError::new(format!(
                "{name} does not name a key; remove it, or write it as {PREFIX}SECTION__KEY"
            )));
        }
        let default = value::get(defaults, &path.split('.').collect::<Vec<_>>());
        layers.push(ConfigLayer::single(name, &path, typed(value, default)));
    }
    Ok(layers)
}

/// Whether Kubernetes set the variable: for a service named `drystone-auth` it sets `DRYSTONE_AUTH_SERVICE_HOST`,
/// `DRYSTONE_AUTH_PORT_50051_TCP` and more in every pod.
fn is_service_link(key: &str) -> bool {
    if key.contains("__") {
        return false;
    }
    let after = |marker: &str| key.rsplit_once(marker).map(|(_, rest)| rest);
    let is_host = key.ends_with("SERVICE_HOST");
    let is_service_port = after("SERVICE_PORT").is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    let is_port = after("PORT").is_some_and(str::is_empty);
    let is_port_detail = after("_PORT_").is_some_and(|rest| {
        let mut parts = rest.split('_');
        parts.next().is_some_and(|number| number.parse::<u16>().is_ok())
            && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    });
    let is_detail_of_port = ["_TCP_PORT", "_TCP_PROTO", "_TCP_ADDR", "_UDP_PORT", "_UDP_PROTO", "_UDP_ADDR"]
        .iter()
        .any(|suffix| key.ends_with(suffix));
    is_host || is_service_port || is_port || is_port_detail || is_detail_of_port
}

/// Converts a variable to the type of its default. A string is used verbatim, even if it looks like a number; other types
/// are parsed as a TOML value, or as a list of unquoted strings: `[a, b]`. Anything else is a string.
fn typed(text: &str, default: Option<&Value>) -> Value {
    if default.is_some_and(Value::is_string) {
        return text.into();
    }
    let toml = format!("value = {text}").parse::<toml::Table>();
    let value = toml.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    let words = || text.strip_prefix('[')?.strip_suffix(']').filter(|words| !words.contains(['[', ']', '"', '\'']));
    match (value, words()) {
        (Some(value), _) => value::from_toml(value),
        (None, Some(words)) => words.split(',').map(str::trim).collect::<Vec<_>>().into(),
        (None, None) => text.into(),
    }
}
