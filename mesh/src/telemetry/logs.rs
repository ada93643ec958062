//! Structured logs on standard error: one event a line, short text for people or JSON for machines.

use std::{fmt, io, io::IsTerminal, str::FromStr};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

/// What is logged, and how it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How a line is written.
    pub format: LogFormat,
    /// Which events are written.
    pub filter: LogFilter,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people: time, level, message, fields.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Which events are logged, as `RUST_LOG` writes it: `info`, `warn,drystone_auth=debug`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

/// A log filter that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no log filter; write a level such as `info`, or levels by module such as `warn,drystone_auth=debug`")]
pub struct LogFilterError(String);

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for LogFilter {
    type Error = LogFilterError;

    fn try_from(text: String) -> Result<Self, LogFilterError> {
        // What is neither level nor module path is taken for a module's name, and would silence everything.
        let is_lawful = !text.trim().is_empty()
            && text.split(',').all(|directive| {
                let level = directive.rsplit('=').next().unwrap_or_default().trim();
                tracing_subscriber::filter::LevelFilter::from_str(level).is_ok()
            });
        match EnvFilter::builder().parse(&text) {
            Ok(_) if is_lawful => Ok(Self(text)),
            _ => Err(LogFilterError(text)),
        }
    }
}

impl From<LogFilter> for String {
    fn from(filter: LogFilter) -> Self {
        filter.0
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Starts logging for the process. Where logging has been started already, as by another mesh in the same test
/// process, it stays as it is.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::builder().parse_lossy(&config.filter.0);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_span_events(FmtSpan::NONE);
    let started = match config.format {
        LogFormat::Text => lines.compact().with_target(false).with_ansi(io::stderr().is_terminal()).finish().try_init_default(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).finish().try_init_default(),
    };
    if started.is_err() {
        tracing::debug!("logging had been started before");
    }
}

/// The same last step for both formats, whose types differ.
trait TryInitDefault {
    fn try_init_default(self) -> Result<(), tracing::subscriber::SetGlobalDefaultError>;
}

impl<S: tracing::Subscriber + Send + Sync + 'static> TryInitDefault for S {
    fn try_init_default(self) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
        tracing::subscriber::set_global_default(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_understood_or_refused() {
        for lawful in ["info", "WARN", "off", "warn,drystone_auth=debug", "info, hyper=off", "drystone[call{method=GetMe}]=trace"] {
            assert!(lawful.parse::<LogFilter>().is_ok(), "{lawful}");
        }
        for unlawful in ["", " ", "loud", "info,loud", "drystone_auth=loud", "a[=info"] {
            assert!(unlawful.parse::<LogFilter>().is_err(), "{unlawful}");
        }
    }
}
