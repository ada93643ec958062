//! How long a call may take: `grpc-timeout` read and written strictly.

use std::time::{Duration, Instant};

use drystone::contract::Deadline as Policy;
use http::{HeaderMap, HeaderValue};

use crate::{
    call::header,
    error::{Error, Reason, Result},
};

/// Reads `grpc-timeout`: 1 to 8 digits and a unit, as the gRPC protocol over HTTP/2 has it.
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

/// How long a unary call may take: what its caller asked for, else what its contract says, else the server's `default`;
/// and at most what the contract says, else the server's `max`.
#[must_use]
pub fn of_call(policy: Policy, asked: Option<Duration>, default: Duration, max: Duration) -> Duration {
    let asked = asked.unwrap_or_else(|| policy.default.unwrap_or(default));
    asked.min(policy.max.unwrap_or(max))
}

/// How long a stream may take: without end, unless its caller or its contract says so.
#[must_use]
pub fn of_stream(policy: Policy, asked: Option<Duration>) -> Option<Duration> {
    let asked = asked.or(policy.default);
    policy.max.map_or(asked, |max| Some(asked.map_or(max, |asked| asked.min(max))))
}

/// Writes `grpc-timeout`, rounded down, in the finest unit whose 8 digits suffice.
#[must_use]
pub fn format_timeout(timeout: Duration) -> HeaderValue {
    let units = [(timeout.as_micros(), 'u'), (timeout.as_millis(), 'm'), (u128::from(timeout.as_secs()), 'S')];
    let (amount, unit) = units.into_iter().find(|(amount, _)| *amount < 100_000_000).unwrap_or((99_999_999, 'S'));
    HeaderValue::try_from(format!("{amount}{unit}")).unwrap_or(HeaderValue::from_static("99999999S"))
}

/// The failure of a call whose time is up.
#[must_use]
pub fn exceeded() -> Error {
    Error::new(Reason::DeadlineExceeded, "the deadline passed before the work was done")
}

/// What is left until `deadline`; `None` if it has passed.
#[must_use]
pub fn remaining(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

/// What is kept back of a deadline that is handed on, so that there is time to answer with what came of it.
const MARGIN: Duration = Duration::from_millis(5);

/// What a call is told that is made within `deadline`, as `grpc-timeout`; `None` if there is no time for it.
#[must_use]
pub fn hand_on(deadline: Instant) -> Option<HeaderValue> {
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
    fn the_contract_says_how_long_a_call_may_take() {
        let seconds = Duration::from_secs;
        let policy = |default: Option<u64>, max: Option<u64>| Policy {
            default: default.map(Duration::from_secs),
            max: max.map(Duration::from_secs),
        };
        for (policy, asked, call, stream) in [
            (policy(None, None), None, 30, None),
            (policy(None, None), Some(90), 60, Some(90)),
            (policy(Some(2), Some(5)), None, 2, Some(2)),
            (policy(Some(2), Some(5)), Some(1), 1, Some(1)),
            (policy(Some(2), Some(5)), Some(9), 5, Some(5)),
            (policy(None, Some(5)), None, 5, Some(5)),
            (policy(Some(2), None), Some(90), 60, Some(90)),
            // Longer than what servers allow where nothing is said.
            (policy(Some(90), Some(120)), None, 90, Some(90)),
        ] {
            let asked = asked.map(seconds);
            assert_eq!(of_call(policy, asked, seconds(30), seconds(60)), seconds(call), "{policy:?} {asked:?}");
            assert_eq!(of_stream(policy, asked), stream.map(seconds), "{policy:?} {asked:?}");
        }
    }

    #[test]
    fn every_unit_is_read() {
        assert_eq!(timeout("2H").unwrap(), Some(Duration::from_hours(2)));
        assert_eq!(timeout("3M").unwrap(), Some(Duration::from_mins(3)));
        assert_eq!(timeout("99999999S").unwrap(), Some(Duration::from_secs(99_999_999)));
        assert_eq!(timeout("250m").unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(timeout("7u").unwrap(), Some(Duration::from_micros(7)));
        assert_eq!(timeout("8n").unwrap(), Some(Duration::from_nanos(8)));
        assert_eq!(parse_timeout(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "S", "1", "123456789S", "-1S", "+1S", "1.5S", "1s", " 1S", "1S ", "1 S", "0x1S", "1SS"] {
            assert_eq!(timeout(bad).unwrap_err().reason(), Reason::MalformedTimeout, "{bad:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(header::GRPC_TIMEOUT, HeaderValue::from_static("1S"));
        twice.append(header::GRPC_TIMEOUT, HeaderValue::from_static("1S"));
        assert!(parse_timeout(&twice).is_err());
    }

    #[test]
    fn what_is_written_is_read_back_no_longer_than_it_was() {
        for given in [Duration::from_micros(1), Duration::from_millis(1500), Duration::from_hours(9600)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::GRPC_TIMEOUT, format_timeout(given));
            let read = parse_timeout(&headers).unwrap().unwrap();
            assert!(read <= given && read >= given.mul_f64(0.99), "{given:?} came back as {read:?}");
        }
    }
}
