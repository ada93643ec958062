//! Lengths of time as people write them: `30s`, `5m`, `1h30m`, `14d`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// The units, longest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A length of time, to the millisecond.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

/// A text that is no length of time.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no length of time; write one as 500ms, 30s, 5m, 1h30m or 14d")]
pub struct SpanError(String);

impl Span {
    /// So many milliseconds.
    #[must_use]
    pub const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }

    /// So many seconds.
    #[must_use]
    pub const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// So many minutes.
    #[must_use]
    pub const fn minutes(count: u64) -> Self {
        Self::seconds(count * 60)
    }

    /// So many hours.
    #[must_use]
    pub const fn hours(count: u64) -> Self {
        Self::minutes(count * 60)
    }

    /// So many days of 24 hours.
    #[must_use]
    pub const fn days(count: u64) -> Self {
        Self::hours(count * 24)
    }

    /// The same as the standard library has it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        parse(text.trim()).map(Self).ok_or_else(|| SpanError(text.to_owned()))
    }
}

/// Numbers, each with a unit, the longer unit first.
fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut units, mut millis) = (text, UNITS.iter(), None::<u64>);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        let (_, length) = units.find(|(name, _)| *name == unit)?;
        let part = number.parse::<u64>().ok()?.checked_mul(*length)?;
        (millis, rest) = (Some(millis.unwrap_or(0).checked_add(part)?), after);
    }
    millis.map(Duration::from_millis)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        for (unit, length) in UNITS {
            if rest >= length {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_people_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("14d", 1_209_600_000),
            ("0", 0),
            (" 2s ", 2_000),
        ] {
            assert_eq!(text.parse::<Span>().unwrap(), Span::millis(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for text in [
            "",
            "5",
            "m",
            "5 m",
            "5x",
            "-5s",
            "1.5h",
            "30s5m",
            "5s5s",
            "99999999999999999999s",
            "9999999999999999d",
            "5µs",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_can_be_read_back(millis in 0u64..u64::MAX / 2) {
            let span = Span::millis(millis);
            proptest::prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }

        #[test]
        fn no_text_makes_the_parser_stumble(text in ".{0,40}") {
            let _ = text.parse::<Span>();
        }
    }
}
