//! Statuses of failed calls, of a size that every gRPC client accepts.
//!
//! A status is sent in response headers. A client that receives more header bytes than it accepts fails the call, and some
//! close the connection with every other call on it. A status may quote its request, so its size is bounded here.

mod step_up;

use std::{borrow::Cow, collections::HashMap, time::Duration};

use tonic::{
    Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

pub use self::step_up::{StepUp, challenge};
use crate::Reason;

/// The maximum size of the headers of a status, in bytes as HTTP/2 counts them (RFC 9113, section 6.5.2). grpc-core and
/// grpc-java accept 8 KiB of response metadata by default.
pub const MAX_SIZE: usize = 6 << 10;

/// The maximum length of a field path in a violation, in bytes.
pub const MAX_FIELD_LENGTH: usize = 128;
/// The maximum length of the description of a violation, in bytes.
pub const MAX_DESCRIPTION_LENGTH: usize = 512;
/// The maximum length of a quoted name from a request, in bytes.
pub const MAX_QUOTE_LENGTH: usize = 64;
/// The maximum number of violations.
const MAX_VIOLATIONS: usize = 32;
/// The maximum size of all violations, in bytes. Base64 adds a third.
const MAX_VIOLATIONS_SIZE: usize = 2 << 10;
/// The maximum length of a message, in bytes as sent, percent-encoded. It is sent in the details as well.
const MAX_MESSAGE_LENGTH: usize = 1 << 10;

/// A status with a reason. The message, the violations and each of their texts are shortened where they are too long.
#[must_use]
pub fn new(reason: Reason, message: &str, violations: Vec<FieldViolation>, retry_after: Option<Duration>) -> Status {
    with_step_up(reason, message, violations, retry_after, StepUp::default())
}

/// A status as [`new`] makes it, of a call that requires this authentication.
#[must_use]
pub fn with_step_up(
    reason: Reason,
    message: &str,
    violations: Vec<FieldViolation>,
    retry_after: Option<Duration>,
    step_up: StepUp,
) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason.name(), Reason::DOMAIN, step_up.metadata());
    set_violations(&mut details, violations);
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    let headers = http_headers(Some(reason), retry_after, step_up);
    Status::with_error_details_and_metadata(reason.code(), bounded_message(message), details, headers)
}

/// The value of `retry-after` (RFC 9110, section 10.2.3): whole seconds, at least one.
#[must_use]
pub fn retry_after_seconds(delay: Duration) -> u64 {
    delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0)).max(1)
}

/// Headers that say in terms of HTTP what the details say, for proxies that make HTTP of a status and read no details, such
/// as Envoy's transcoder.
fn http_headers(reason: Option<Reason>, retry_after: Option<Duration>, step_up: StepUp) -> MetadataMap {
    let mut headers = MetadataMap::new();
    if reason.is_some_and(|reason| reason.http() == 401)
        && let Ok(challenge) = challenge(reason, step_up).parse::<AsciiMetadataValue>()
    {
        headers.insert("www-authenticate", challenge);
    }
    if let Some(delay) = retry_after {
        headers.insert("retry-after", retry_after_seconds(delay).into());
    }
    headers
}

/// The status of an invalid request, whose message lists its violations.
#[must_use]
pub fn invalid_request(violations: Vec<FieldViolation>) -> Status {
    let count = violations.len();
    let mut details = ErrorDetails::new();
    set_violations(&mut details, violations);
    let shown = details.bad_request().map(|request| request.field_violations.as_slice()).unwrap_or_default();
    let line = |violation: &FieldViolation| format!("{}: {}", violation.field, violation.description);
    let mut lines: Vec<String> = shown.iter().map(line).collect();
    if shown.len() < count {
        lines.push(format!("and {} more", count - shown.len()));
    }
    let reason = Reason::InvalidRequest;
    details.set_error_info(reason.name(), Reason::DOMAIN, HashMap::new());
    Status::with_error_details(reason.code(), bounded_message(&lines.join("; ")), details)
}

/// A status with the code, the shortened message, and the reason, required authentication, violations and retry delay of
/// another one, whose headers are too large.
#[must_use]
pub fn shortened(status: &Status) -> Status {
    let given = status.get_error_details();
    let step_up = StepUp::of(status);
    let mut details = ErrorDetails::new();
    if let Some(info) = given.error_info()
        && info.reason.len().max(info.domain.len()) <= MAX_FIELD_LENGTH
    {
        details.set_error_info(&*info.reason, &*info.domain, step_up.metadata());
    }
    if let Some(request) = given.bad_request() {
        set_violations(&mut details, request.field_violations.clone());
    }
    let retry_delay = given.retry_info().and_then(|info| info.retry_delay);
    if retry_delay.is_some() {
        details.set_retry_info(retry_delay);
    }
    let reason = details.error_info().and_then(|info| Reason::from_name(&info.reason));
    let headers = http_headers(reason, retry_delay, step_up);
    Status::with_error_details_and_metadata(status.code(), bounded_message(status.message()), details, headers)
}

/// The beginning of a text that is longer than `max` bytes, with an ellipsis.
#[must_use]
pub fn shorten(text: &str, max: usize) -> Cow<'_, str> {
    shorten_by(text, max, |_| 1)
}

/// A name from a request, short enough to be quoted in an error.
#[must_use]
pub fn quote(name: &str) -> Cow<'_, str> {
    shorten(name, MAX_QUOTE_LENGTH)
}

fn set_violations(details: &mut ErrorDetails, violations: Vec<FieldViolation>) {
    let mut size = 0;
    let fits = |violation: &FieldViolation| {
        size += violation.field.len() + violation.description.len() + 8;
        size <= MAX_VIOLATIONS_SIZE
    };
    let violations: Vec<FieldViolation> =
        violations.into_iter().take(MAX_VIOLATIONS).map(bounded_violation).take_while(fits).collect();
    if !violations.is_empty() {
        details.set_bad_request(violations);
    }
}

fn bounded_violation(mut violation: FieldViolation) -> FieldViolation {
    for (text, max) in [(&mut violation.field, MAX_FIELD_LENGTH), (&mut violation.description, MAX_DESCRIPTION_LENGTH)]
    {
        if text.len() > max {
            *text = shorten(text, max).into_owned();
        }
    }
    // Never sent by us.
    violation.reason.clear();
    violation.localized_message = None;
    violation
}

fn bounded_message(message: &str) -> Cow<'_, str> {
    shorten_by(message, MAX_MESSAGE_LENGTH, encoded_length)
}

/// The length of a byte of `grpc-message`. Percent-encoding takes three bytes for all that this does not list, at most.
fn encoded_length(byte: u8) -> usize {
    if byte.is_ascii_alphanumeric() || b"-_.,:;/'()[]=+*&!@$|~^".contains(&byte) { 1 } else { 3 }
}

fn shorten_by(text: &str, max: usize, length: impl Fn(u8) -> usize) -> Cow<'_, str> {
    const ELLIPSIS: &str = "...";
    let (mut total, mut end) = (0, 0);
    for (index, byte) in text.bytes().enumerate() {
        total += length(byte);
        if total <= max - ELLIPSIS.len() {
            end = index + 1;
        }
        if total > max {
            return Cow::Owned(format!("{}{ELLIPSIS}", &text[..text.floor_char_boundary(end)]));
        }
    }
    Cow::Borrowed(text)
}

#[cfg(test)]
mod tests {
    use drystone_contract::Factors;
    use tonic::{Code, metadata::MetadataMap};

    use super::*;

    /// The size of a status in headers.
    fn size(status: &Status) -> usize {
        let headers = status.clone().into_http::<()>().into_parts().0.headers;
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
    }

    fn violations(count: usize, field: &str, description: &str) -> Vec<FieldViolation> {
        (0..count).map(|_| FieldViolation::new(field, description)).collect()
    }

    #[test]
    fn a_status_is_deliverable_whatever_it_quotes() {
        for text in ["a", " ", "\"", "é", "🦀", "\u{0}", "%"] {
            for length in [1, 100, 1_000, 20_000] {
                let text = text.repeat(length);
                for count in [1, 2, 33, 100] {
                    let given = violations(count, &text, &text);
                    let invalid = invalid_request(given.clone());
                    let new = new(Reason::InvalidRequest, &text, given, Some(Duration::MAX));
                    assert!(size(&invalid) <= MAX_SIZE, "{} for {count} times {length}", size(&invalid));
                    assert!(size(&new) <= MAX_SIZE, "{} for {count} times {length}", size(&new));
                    assert_eq!(invalid.get_details_error_info().unwrap().reason, "INVALID_REQUEST");
                    assert!(!invalid.get_details_bad_request().unwrap().field_violations.is_empty());
                }
            }
        }
    }

    #[test]
    fn short_texts_are_unchanged() {
        let status = invalid_request(violations(2, "labels[\"a\"]", "must be short"));
        assert_eq!(status.message(), "labels[\"a\"]: must be short; labels[\"a\"]: must be short");
        assert_eq!(shorten("é", 3), "é");
        assert_eq!(shorten("abcde", 5), "abcde");
    }

    #[test]
    fn long_texts_end_with_an_ellipsis() {
        assert_eq!(shorten("abcdef", 5), "ab...");
        // Not within a character.
        assert_eq!(shorten("aéaéa", 5), "a...");
        assert_eq!(shorten("éé🦀", 7), "éé...");
    }

    #[test]
    fn omitted_violations_are_counted_in_the_message() {
        let status = invalid_request(violations(40, "a", "b"));
        assert!(status.message().ends_with("a: b; and 8 more"), "{}", status.message());
        assert_eq!(status.get_details_bad_request().unwrap().field_violations.len(), MAX_VIOLATIONS);
    }

    #[test]
    fn a_status_says_the_same_in_http_headers() {
        let headers = |reason, delay| new(reason, "no", Vec::new(), delay).metadata().clone();
        assert_eq!(headers(Reason::TokenMissing, None).get("www-authenticate").unwrap(), "Bearer");
        assert_eq!(
            headers(Reason::TokenRevoked, None).get("www-authenticate").unwrap(),
            "Bearer error=\"invalid_token\""
        );
        let limited = headers(Reason::RateLimited, Some(Duration::from_millis(2100)));
        assert_eq!(limited.get("retry-after").unwrap(), "3");
        assert!(limited.get("www-authenticate").is_none());
        assert!(headers(Reason::PropertyNotFound, None).is_empty());
        for (delay, seconds) in [(Duration::ZERO, 1), (Duration::from_secs(2), 2), (Duration::MAX, u64::MAX)] {
            assert_eq!(retry_after_seconds(delay), seconds);
        }
    }

    #[test]
    fn a_required_authentication_is_in_details_and_headers() {
        let step_up = StepUp::new(Some(Duration::from_mins(10)), Some(Factors::Two));
        let given = with_step_up(Reason::FactorsRequired, "no", Vec::new(), None, step_up);
        let expected = HashMap::from(
            [("max_age", "600"), ("acr_values", "mfa")].map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        for status in [shortened(&given), given] {
            assert_eq!(status.get_details_error_info().unwrap().metadata, expected);
            assert_eq!(StepUp::of(&status), step_up);
            let header = status.metadata().get("www-authenticate").unwrap().to_str().unwrap();
            assert_eq!(header, challenge(Some(Reason::FactorsRequired), step_up));
            assert!(header.ends_with("acr_values=\"mfa\", max_age=\"600\""), "{header}");
        }
    }

    #[test]
    fn a_shortened_status_keeps_its_code_reason_and_retry_delay() {
        let mut details = ErrorDetails::new();
        details.set_error_info("OVERLOADED", "drystone", HashMap::from([("k".repeat(9_000), "v".to_owned())]));
        details.set_retry_info(Some(Duration::from_secs(7)));
        details.set_debug_info(vec!["frame".repeat(1_000)], "detail");
        let mut metadata = MetadataMap::new();
        metadata.insert("x-large", "v".repeat(9_000).parse().unwrap());
        let given =
            Status::with_error_details_and_metadata(Code::ResourceExhausted, "m".repeat(9_000), details, metadata);
        let status = shortened(&given);
        assert!(size(&status) <= MAX_SIZE);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().starts_with("mmm") && status.message().ends_with("..."));
        assert_eq!(status.get_details_error_info().unwrap().reason, "OVERLOADED");
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(7)));
        assert_eq!(status.metadata().get("retry-after").unwrap(), "7");
    }
}
