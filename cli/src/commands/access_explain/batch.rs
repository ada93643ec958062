//! Many decisions in one process: lines of JSON in, lines of JSON out.

use drystone_mesh::{
    clock::{Clock, Timestamp},
    config::Secret,
};
use serde::{Deserialize, Serialize};

use super::{ambiguous, parse_time};
use crate::{
    access::{Decider, Named, Query},
    command_line::WrongUsage,
};

/// A call to decide about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    caller: String,
    method: String,
    #[serde(default)]
    token: Option<Secret>,
    #[serde(default)]
    at: Option<String>,
}

/// The decision.
#[derive(Serialize)]
struct Answer {
    allowed: bool,
    part: Option<&'static str>,
    reason: Option<&'static str>,
}

impl Line {
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }
}

/// Parses the lines; empty ones are skipped. An error names its line and repeats nothing of it, since it may have a token.
pub(super) fn parse(text: &str) -> Result<Vec<Line>, WrongUsage> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(number, line)| {
        serde_json::from_str(line).map_err(|_| {
            let number = number + 1;
            WrongUsage(format!(
                "line {number} is not an object of `caller`, `method` and, if wanted, `token` and `at`, each a text"
            ))
        })
    };
    lines.map(parse).collect()
}

/// A line with the decision about each call, in order.
pub(super) fn decide(decider: &Decider, lines: &[Line]) -> Result<String, WrongUsage> {
    let now = Clock::system().now();
    let mut answers = String::new();
    for (number, line) in lines.iter().enumerate() {
        let answer = answer(decider, line, now)
            .map_err(|WrongUsage(text)| WrongUsage(format!("call {}: {text}", number + 1)))?;
        answers += &answer;
        answers.push('\n');
    }
    Ok(answers)
}

fn answer(decider: &Decider, line: &Line, now: Timestamp) -> Result<String, WrongUsage> {
    let rule = match decider.find(&line.method) {
        Named::Rule(rule) => Some(&**rule),
        Named::Unknown => None,
        Named::Ambiguous(several) => return Err(ambiguous(&line.method, &several)),
    };
    let at = match &line.at {
        Some(text) => parse_time(text).map_err(|advice| WrongUsage(format!("`at` is not a time; {advice}")))?,
        None => now,
    };
    let decision = decider.decide(rule, &Query { caller: &line.caller, token: line.token.as_ref(), at })?;
    let denial = decision.denial.as_ref();
    let answer = Answer {
        allowed: denial.is_none(),
        part: denial.map(|denial| denial.part.name()),
        reason: denial.map(|denial| denial.error.reason().name()),
    };
    serde_json::to_string(&answer).map_err(|error| WrongUsage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_repeats_nothing_of_its_line() {
        for (text, number) in [
            (r#"{"caller": "edge", "method": "a/b", "token": ["secret"]}"#, 1),
            ("{\"caller\": \"edge\", \"method\": \"a/b\"}\n\n{\"secret\": 1}", 3),
            ("secret", 1),
        ] {
            let Err(WrongUsage(error)) = parse(text) else { panic!("{text}") };
            assert!(error.starts_with(&format!("line {number} is not")) && !error.contains("secret"), "{error}");
        }
    }
}
