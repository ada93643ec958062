//! Structured logs on standard error: one event a line, short text for people or JSON for machines.

use std::{fmt, io, io::IsTerminal, str::FromStr};

use serde::{Deserialize, Serialize};
use tracing::{Dispatch, dispatcher};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt::MakeWriter};

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
        let is_valid = !text.trim().is_empty()
            && text.split(',').all(|directive| {
                let level = directive.rsplit('=').next().unwrap_or_default().trim();
                LevelFilter::from_str(level).is_ok()
            });
        match EnvFilter::builder().parse(&text) {
            Ok(_) if is_valid => Ok(Self(text)),
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
    let dispatch = dispatch(config, io::stderr, io::stderr().is_terminal());
    if dispatcher::set_global_default(dispatch).is_err() {
        tracing::debug!("logging had been started before");
    }
}

fn dispatch<W>(config: &LogConfig, writer: W, is_terminal: bool) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse_lossy(&config.filter.0);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(OneLine(writer));
    match config.format {
        LogFormat::Text => Dispatch::new(lines.compact().with_target(false).with_ansi(is_terminal).finish()),
        LogFormat::Json => Dispatch::new(lines.json().flatten_event(true).with_span_list(false).finish()),
    }
}

/// Keeps each event on its line, so that nobody whose text is logged can forge another line. An event is one write.
struct OneLine<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLine<W> {
    type Writer = OneLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(self.0.make_writer())
    }
}

impl<W: io::Write> io::Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (line, end) = event.split_at(event.len() - usize::from(event.ends_with(b"\n")));
        if !line.iter().any(|byte| b"\r\n".contains(byte)) {
            self.0.write_all(event)?;
            return Ok(event.len());
        }
        let mut kept = Vec::with_capacity(event.len() + 8);
        for byte in line {
            match byte {
                b'\n' => kept.extend(b"\\n"),
                b'\r' => kept.extend(b"\\r"),
                other => kept.push(*other),
            }
        }
        kept.extend(end);
        self.0.write_all(&kept)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Where a test reads what was logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What these events write.
    fn written(format: LogFormat, filter: &str, events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let config = LogConfig { format, filter: filter.parse().unwrap() };
        dispatcher::with_default(&dispatch(&config, move || writer.clone(), false), events);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_is_short() {
        let text = written(LogFormat::Text, "info", || tracing::info!(caller = "edge", "call denied"));
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.ends_with('Z'), "{text}");
        assert_eq!(rest.trim_start(), "INFO call denied caller=\"edge\"\n");
    }

    #[test]
    fn json_is_one_object_a_line_with_the_span_that_it_came_from() {
        let text = written(LogFormat::Json, "info", || {
            let _in_call = tracing::info_span!("call", request_id = "r1").entered();
            tracing::warn!(code = 7, "call denied");
            tracing::debug!("not asked for");
        });
        let event: serde_json::Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!((&event["message"], &event["code"]), (&"call denied".into(), &7.into()));
        assert_eq!((&event["level"], &event["span"]["request_id"]), (&"WARN".into(), &"r1".into()));
    }

    #[test]
    fn nobody_can_forge_a_line() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = written(format, "info", || tracing::info!(agent = %"x\r\n2026 INFO all is well", "signed in"));
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.ends_with('\n') && text.contains(r"x\r\n2026"), "{text}");
        }
    }

    #[test]
    fn filters_are_understood_or_refused() {
        for valid in ["info", "WARN", "off", "warn,drystone_auth=debug", "drystone[call{method=GetMe}]=trace"] {
            assert!(valid.parse::<LogFilter>().is_ok(), "{valid}");
        }
        for invalid in ["", " ", "loud", "info,loud", "info, hyper=off", "drystone_auth=loud", "a[=info"] {
            assert!(invalid.parse::<LogFilter>().is_err(), "{invalid}");
        }
    }
}
