//! Deadlines: strict parsing and formatting of `grpc-timeout`, and the bounds of policies.

use std::time::{Duration, Instant};

use drystone::contract::Deadline as DeadlinePolicy;
use http::{HeaderMap, HeaderValue};

use crate::{
    call::header,
    error::{Error, Reason, Result},
};

/// Parses `grpc-timeout`: 1 to 8 digits and a unit (gRPC over HTTP/2).
///
/// # Errors
/// `MALFORMED_TIMEOUT` for anything else, a second header included.
pub fn parse_timeout(headers: &HeaderMap) -> Result<Option<Duration>> {
    let mut values = headers.get_all(header::GRPC_TIMEOUT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let parsed = if values.next().is_some() { None } else { parse(value.as_bytes()) };
    parsed.map(Some).ok_or_else(|| {
        Error::new(
            Reason::MalformedTimeout,
            "`grpc-timeout` cannot be read; send 1 to 8 digits and one unit of H, M, S, m, u, n, such as `500m`",
        )
    })
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Whose deadline applies to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetBy {
    /// The caller's `grpc-timeout`.
    Caller,
    /// The contract or the server's configuration.
    Server,
}

impl SetBy {
    /// Whose timeout it is that applies, given the one without the caller's.
    #[must_use]
    pub fn of(applied: Option<Duration>, without_caller: Option<Duration>) -> Self {
        match (applied, without_caller) {
            (Some(applied), Some(without_caller)) if applied < without_caller => Self::Caller,
            (Some(_), None) => Self::Caller,
            _ => Self::Server,
        }
    }

    /// The label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Server => "server",
        }
    }
}

/// The timeout of a unary call: that of the caller, else the policy's default, else `default`; bounded by the policy's
/// maximum, else by `max`.
#[must_use]
pub fn for_unary(policy: DeadlinePolicy, requested: Option<Duration>, default: Duration, max: Duration) -> Duration {
    let requested = requested.unwrap_or_else(|| policy.default.unwrap_or(default));
    requested.min(policy.max.unwrap_or(max))
}

/// The timeout of a stream: none unless the caller or the policy sets one.
#[must_use]
pub fn for_stream(policy: DeadlinePolicy, requested: Option<Duration>) -> Option<Duration> {
    let requested = requested.or(policy.default);
    policy.max.map_or(requested, |max| Some(requested.map_or(max, |requested| requested.min(max))))
}

/// Formats `grpc-timeout`, rounded down, in the finest unit that fits into 8 digits.
#[must_use]
pub fn format_timeout(timeout: Duration) -> HeaderValue {
    let units = [(timeout.as_micros(), 'u'), (timeout.as_millis(), 'm'), (u128::from(timeout.as_secs()), 'S')];
    let (amount, unit) = units.into_iter().find(|(amount, _)| *amount < 100_000_000).unwrap_or((99_999_999, 'S'));
    HeaderValue::try_from(format!("{amount}{unit}")).unwrap_or(HeaderValue::from_static("99999999S"))
}

/// The error of a call after its deadline.
#[must_use]
pub fn exceeded() -> Error {
    Error::new(Reason::DeadlineExceeded, "the deadline passed before the work was done")
}

/// The time until `deadline`; `None` if it has passed.
#[must_use]
pub fn remaining(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

/// The margin subtracted from a propagated deadline, so that the caller can still answer after the callee's timeout.
const MARGIN: Duration = Duration::from_millis(5);

/// The `grpc-timeout` of a call within `deadline`; `None` if no time is left.
#[must_use]
pub fn propagate(deadline: Instant) -> Option<HeaderValue> {
    remaining(deadline)?.checked_sub(MARGIN).map(format_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(value: &str) -> Result<Option<Duration>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::GRPC_TIMEOUT, HeaderValue::from_str(value).unwrap());
        parse_timeout(&headers)
    }

    #[test]
    fn the_policy_bounds_the_deadline() {
        let seconds = Duration::from_secs;
        let policy = |default: Option<u64>, max: Option<u64>| DeadlinePolicy {
            default: default.map(Duration::from_secs),
            max: max.map(Duration::from_secs),
        };
        for (policy, requested, call, stream) in [
            (policy(None, None), None, 30, None),
            (policy(None, None), Some(90), 60, Some(90)),
            (policy(Some(2), Some(5)), None, 2, Some(2)),
            (policy(Some(2), Some(5)), Some(1), 1, Some(1)),
            (policy(Some(2), Some(5)), Some(9), 5, Some(5)),
            (policy(None, Some(5)), None, 5, Some(5)),
            (policy(Some(2), None), Some(90), 60, Some(90)),
            // Longer than the server's own maximum.
            (policy(Some(90), Some(120)), None, 90, Some(90)),
        ] {
            let requested = requested.map(seconds);
            assert_eq!(
                for_unary(policy, requested, seconds(30), seconds(60)),
                seconds(call),
                "{policy:?} {requested:?}"
            );
            assert_eq!(for_stream(policy, requested), stream.map(seconds), "{policy:?} {requested:?}");
        }
    }

    #[test]
    fn the_shorter_timeout_decides_whose_deadline_it_is() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (applied, without_caller, set_by) in [
            (seconds(1), seconds(30), SetBy::Caller),
            (seconds(1), None, SetBy::Caller),
            (seconds(30), seconds(30), SetBy::Server),
            // A caller may ask for more than the default.
            (seconds(60), seconds(30), SetBy::Server),
            (None, None, SetBy::Server),
        ] {
            assert_eq!(SetBy::of(applied, without_caller), set_by, "{applied:?} {without_caller:?}");
        }
    }

    #[test]
    fn every_unit_is_parsed() {
        assert_eq!(timeout("2H").unwrap(), Some(Duration::from_hours(2)));
        assert_eq!(timeout("3M").unwrap(), Some(Duration::from_mins(3)));
        assert_eq!(timeout("99999999S").unwrap(), Some(Duration::from_secs(99_999_999)));
        assert_eq!(timeout("250m").unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(timeout("7u").unwrap(), Some(Duration::from_micros(7)));
        assert_eq!(timeout("8n").unwrap(), Some(Duration::from_nanos(8)));
        assert_eq!(parse_timeout(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn invalid_timeouts_are_rejected() {
        for bad in ["", "S", "1", "123456789S", "-1S", "+1S", "1.5S", "1s", " 1S", "1S ", "1 S", "0x1S", "1SS"] {
            assert_eq!(timeout(bad).unwrap_err().reason(), Reason::MalformedTimeout, "{bad:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(header::GRPC_TIMEOUT, HeaderValue::from_static("1S"));
        twice.append(header::GRPC_TIMEOUT, HeaderValue::from_static("1S"));
        assert!(parse_timeout(&twice).is_err());
    }

    #[test]
    fn a_formatted_timeout_is_never_longer() {
        for given in [Duration::from_micros(1), Duration::from_millis(1500), Duration::from_hours(9600)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::GRPC_TIMEOUT, format_timeout(given));
            let read = parse_timeout(&headers).unwrap().unwrap();
            assert!(read <= given && read >= given.mul_f64(0.99), "{given:?} came back as {read:?}");
        }
    }
}
