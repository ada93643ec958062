//! What a mesh has logged, line by line, where it logs JSON.

use serde_json::Value;

/// The lines of a log in JSON. The last one may be on its way to the file still, and counts once it is there.
///
/// # Panics
/// If a line is not a JSON object.
#[must_use]
pub fn events(log: &str) -> Vec<Value> {
    let parse =
        |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("this log line is not JSON ({error}): {line}"));
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.lines().map(parse).collect()
}

/// A field of an event, or of the call that it belongs to.
#[must_use]
pub fn field<'a>(event: &'a Value, name: &str) -> &'a str {
    event[name].as_str().or_else(|| event["span"][name].as_str()).unwrap_or_default()
}
