//! The REST walk of the README, whose responses are the same whoever serves it.

use std::{fs, net::SocketAddr, path::Path};

use serde_json::{Value, json};

use crate::readme;

/// The responses of a walk, with what differs in each run replaced: ids, times and tokens.
#[derive(Debug, PartialEq, Eq)]
pub struct Walk {
    /// Status and body of each response.
    responses: Vec<(String, Value)>,
}

impl Walk {
    /// Runs the commands of the README at an address, from an address that no proxy has.
    ///
    /// # Panics
    /// If a command has no response.
    #[must_use]
    pub fn run(rest: SocketAddr, directory: &Path) -> Self {
        // A wrapper around curl that records status and body.
        const CURL: &str = r#"curl() { command curl --interface 127.0.0.9 -w '%{stderr}%{http_code}\n' "$@" | tee -a bodies; echo >>bodies; }"#;
        let script = readme::section("walk").replace("http://127.0.0.1:8080", &format!("http://{rest}"));
        let output = readme::run(&format!("{CURL}\n{script}"), directory);
        let statuses: Vec<_> = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
        assert_eq!(statuses.len(), script.matches("curl -s ").count(), "each call has a status: {statuses:?}");
        let bodies = fs::read_to_string(directory.join("bodies")).expect("curl has written the bodies");
        let bodies: Vec<Value> = bodies.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(bodies.len(), statuses.len(), "each call has a body");
        Self { responses: statuses.into_iter().zip(bodies.into_iter().map(comparable)).collect() }
    }

    /// As the edge would have answered what Envoy answered, but for the differences listed in docs/envoy.md.
    #[must_use]
    pub fn without_differences_of_envoy(self) -> Self {
        let responses = self.responses.into_iter();
        Self { responses: responses.map(|(status, body)| (status, without_differences_of_envoy(body))).collect() }
    }
}

fn comparable(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| {
                let value = match name.as_str() {
                    "accessToken" | "refreshToken" | "deviceToken" | "tokenId" => json!("a token"),
                    "expiresIn" if value.as_i64().is_some_and(|seconds| (290..=300).contains(&seconds)) => json!(300),
                    _ => comparable(value),
                };
                (name, value)
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(comparable).collect(),
        Value::String(text) if text.parse::<uuid::Uuid>().is_ok() => json!("an id"),
        Value::String(text) if text.len() > 19 && text.starts_with("20") && text.ends_with('Z') => json!("a time"),
        other => other,
    }
}

/// The fields in the error responses of these tests: name in the contract, and name in JSON.
const FIELDS: [(&str, &str); 5] = [
    ("id", "id"),
    ("display_name", "displayName"),
    ("property.display_name", "displayName"),
    ("property.labels[\"kind\"]", "labels[\"kind\"]"),
    ("page_size", "pageSize"),
];

/// An error response of Envoy, with the differences listed in docs/envoy.md removed.
///
/// # Panics
/// If it has others.
#[must_use]
pub fn without_differences_of_envoy(mut body: Value) -> Value {
    let mut message = body["message"].clone();
    let Some(details) = body.get_mut("details").and_then(Value::as_array_mut) else { return body };
    for detail in details {
        let members = detail.as_object_mut().expect("a detail is an object");
        match members["@type"].as_str().expect("it is a text") {
            "type.googleapis.com/google.rpc.ErrorInfo" => {
                assert_eq!(members.remove("metadata"), Some(json!({})), "Envoy writes members without a value");
            }
            "type.googleapis.com/google.rpc.BadRequest" => {
                let violations = members["fieldViolations"].as_array_mut().expect("it is a list");
                let before = summary(violations);
                for violation in violations.iter_mut() {
                    let violation = violation.as_object_mut().expect("a detail is an object");
                    assert_eq!(violation.remove("reason"), Some(json!("")), "Envoy writes members without a value");
                    let known = FIELDS.into_iter().find(|(contract, _)| violation["field"] == *contract);
                    let (_, json) = known.unwrap_or_else(|| panic!("unknown field: {violation:?}"));
                    violation.insert("field".to_owned(), json!(json));
                }
                assert_eq!(message, before, "message and details name the same fields");
                message = json!(summary(violations));
            }
            other => panic!("unexpected detail {other}"),
        }
    }
    body["message"] = message;
    body
}

/// The message of an error with these violations.
fn summary(violations: &[Value]) -> String {
    let text = |value: &Value| value.as_str().expect("it is a text").to_owned();
    let lines = violations.iter().map(|one| format!("{}: {}", text(&one["field"]), text(&one["description"])));
    lines.collect::<Vec<_>>().join("; ")
}
