//! Parses the JSON log of a mesh.

use serde_json::Value;

/// The lines of a JSON log. Ignores an incomplete last line, which is still being written.
///
/// # Panics
/// If a line is not a JSON object.
#[must_use]
pub fn events(log: &str) -> Vec<Value> {
    let parse =
        |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("this log line is not JSON ({error}): {line}"));
    let complete = log.rfind('\n').map_or("", |end| &log[..end]);
    complete.lines().map(parse).collect()
}

/// A field of an event or of its span; empty if there is none.
#[must_use]
pub fn field<'a>(event: &'a Value, name: &str) -> &'a str {
    event[name].as_str().or_else(|| event["span"][name].as_str()).unwrap_or_default()
}
