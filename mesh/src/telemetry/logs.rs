//! Structured logs on standard error, one event per line, as text or JSON.

use std::{fmt, io, io::IsTerminal, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};
use tracing::{Dispatch, Subscriber, dispatcher};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, LevelFilter, filter_fn},
    fmt::{MakeWriter, layer},
    layer::SubscriberExt,
    registry::LookupSpan,
};

use super::audit_file::{AuditFile, AuditFileError};

/// The target of audit records.
const AUDIT: &str = "audit";

/// The configuration of logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The format of a line.
    pub format: LogFormat,
    /// Which events are logged.
    pub filter: LogFilter,
    /// A file for audit records, as JSON, which are then not in the log.
    pub audit_file: Option<PathBuf>,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human-readable: time, level, message, fields.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Which events are logged, in the syntax of `RUST_LOG`: `info`, `warn,drystone_auth=debug`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

/// An invalid log filter.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a log filter; write a level such as `info`, or levels by module such as `warn,drystone_auth=debug`"
)]
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
        // A misspelt level is parsed as a module name, and would disable all logs.
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

/// Initializes logging for the process. Does nothing if it is initialized already, as by another mesh in the same test
/// process.
///
/// # Errors
/// The audit file cannot be opened.
pub fn init(config: &LogConfig) -> Result<(), AuditFileError> {
    let dispatch = dispatch(config, io::stderr, io::stderr().is_terminal())?;
    if dispatcher::set_global_default(dispatch).is_err() {
        tracing::debug!("logging was already initialized");
    }
    Ok(())
}

fn dispatch<W>(config: &LogConfig, writer: W, is_terminal: bool) -> Result<Dispatch, AuditFileError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse_lossy(&config.filter.0);
    let Some(audit_file) = &config.audit_file else {
        let registry = tracing_subscriber::registry().with(filter);
        return Ok(match config.format {
            LogFormat::Text => Dispatch::new(registry.with(text_lines(writer, is_terminal))),
            LogFormat::Json => Dispatch::new(registry.with(json_lines(writer))),
        });
    };
    let records = json_lines(AuditFile::open(audit_file)?);
    // With hints, events of a lower level are disabled for good, as without a file.
    let is_record = filter_fn(|metadata| metadata.is_span() || metadata.target() == AUDIT);
    let records = records.with_filter(LevelFilter::INFO.and(is_record.with_max_level_hint(LevelFilter::INFO)));
    let is_not_record = filter_fn(|metadata| metadata.target() != AUDIT).with_max_level_hint(LevelFilter::TRACE);
    let filter = filter.and(is_not_record);
    let registry = tracing_subscriber::registry().with(records);
    Ok(match config.format {
        LogFormat::Text => Dispatch::new(registry.with(text_lines(writer, is_terminal).with_filter(filter))),
        LogFormat::Json => Dispatch::new(registry.with(json_lines(writer).with_filter(filter))),
    })
}

/// Human-readable lines.
fn text_lines<S, W>(writer: W, is_terminal: bool) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    layer().with_writer(EscapeLineBreaks(writer)).compact().with_target(false).with_ansi(is_terminal)
}

/// One JSON object a line.
fn json_lines<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    layer().with_writer(EscapeLineBreaks(writer)).json().flatten_event(true).with_span_list(false)
}

/// Escapes line breaks in an event, to prevent log injection. Each event is one write.
struct EscapeLineBreaks<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for EscapeLineBreaks<W> {
    type Writer = EscapeLineBreaks<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapeLineBreaks(self.0.make_writer())
    }
}

impl<W: io::Write> io::Write for EscapeLineBreaks<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (line, end) = event.split_at(event.len() - usize::from(event.ends_with(b"\n")));
        if !line.iter().any(|byte| b"\r\n".contains(byte)) {
            self.0.write_all(event)?;
            return Ok(event.len());
        }
        let mut escaped = Vec::with_capacity(event.len() + 8);
        for byte in line {
            match byte {
                b'\n' => escaped.extend(b"\\n"),
                b'\r' => escaped.extend(b"\\r"),
                other => escaped.push(*other),
            }
        }
        escaped.extend(end);
        self.0.write_all(&escaped)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::MetadataExt,
        path::Path,
        sync::{Arc, Mutex},
    };

    use super::*;

    /// Captures the output of logs.
    #[derive(Clone, Default)]
    struct CapturedOutput(Arc<Mutex<Vec<u8>>>);

    impl io::Write for CapturedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The output of these events.
    fn logged(format: LogFormat, filter: &str, events: impl FnOnce()) -> String {
        let output = CapturedOutput::default();
        let writer = output.clone();
        let config = LogConfig { format, filter: filter.parse().unwrap(), audit_file: None };
        dispatcher::with_default(&dispatch(&config, move || writer.clone(), false).unwrap(), events);
        let bytes = output.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_has_time_level_message_and_fields() {
        let text = logged(LogFormat::Text, "info", || tracing::info!(caller = "edge", "call denied"));
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.ends_with('Z'), "{text}");
        assert_eq!(rest.trim_start(), "INFO call denied caller=\"edge\"\n");
    }

    #[test]
    fn json_is_one_object_per_line_with_its_span() {
        let text = logged(LogFormat::Json, "info", || {
            let _entered = tracing::info_span!("call", request_id = "r1").entered();
            tracing::warn!(code = 7, "call denied");
            tracing::debug!("filtered out");
        });
        let event: serde_json::Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!((&event["message"], &event["code"]), (&"call denied".into(), &7.into()));
        assert_eq!((&event["level"], &event["span"]["request_id"]), (&"WARN".into(), &"r1".into()));
    }

    #[test]
    fn audit_records_go_to_their_own_file_whatever_the_filter_and_survive_its_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let (path, rotated) = (directory.path().join("audit.log"), directory.path().join("audit.log.1"));
        let output = CapturedOutput::default();
        let writer = output.clone();
        // More than records need is enabled for the log.
        let config = LogConfig {
            filter: "warn,x=debug".parse().unwrap(),
            audit_file: Some(path.clone()),
            ..LogConfig::default()
        };
        let dispatch = dispatch(&config, move || writer.clone(), false).unwrap();
        dispatcher::with_default(&dispatch, || {
            let _entered = tracing::info_span!("call", request_id = "r1").entered();
            tracing::info!(target: "audit", code = "Ok", "audited call");
            std::fs::rename(&path, &rotated).unwrap();
            tracing::warn!(target: "audit", event = "refresh_token_reused", "session ended");
            tracing::debug!(target: "audit", "not a record");
            tracing::debug_span!(target: "x", "connection").in_scope(|| tracing::debug!(target: "x", "in the log"));
            tracing::info!("filtered out");
            tracing::warn!("call denied");
        });
        let records = |path: &Path| -> Vec<serde_json::Value> {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let (before, after) = (records(&rotated), records(&path));
        assert_eq!((before.len(), after.len()), (1, 1), "{before:?} {after:?}");
        assert_eq!((&before[0]["code"], &before[0]["span"]["request_id"]), (&"Ok".into(), &"r1".into()));
        assert_eq!(after[0]["event"], "refresh_token_reused");
        let log = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.contains("call denied") && log.contains("in the log"), "{log}");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_audit_file_that_cannot_be_opened_is_an_error() {
        let config = LogConfig { audit_file: Some("/nonexistent/audit.log".into()), ..LogConfig::default() };
        let error = dispatch(&config, io::sink, false).unwrap_err();
        assert!(error.to_string().contains("log.audit_file"), "{error}");
    }

    #[test]
    fn line_breaks_are_escaped() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, "info", || tracing::info!(agent = %"x\r\n2026 INFO all is well", "signed in"));
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.ends_with('\n') && text.contains(r"x\r\n2026"), "{text}");
        }
    }

    #[test]
    fn filters_are_validated() {
        for valid in ["info", "WARN", "off", "warn,drystone_auth=debug", "drystone[call{method=GetMe}]=trace"] {
            assert!(valid.parse::<LogFilter>().is_ok(), "{valid}");
        }
        for invalid in ["", " ", "loud", "info,loud", "info, hyper=off", "drystone_auth=loud", "a[=info"] {
            assert!(invalid.parse::<LogFilter>().is_err(), "{invalid}");
        }
    }
}
