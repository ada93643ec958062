//! Human-readable durations: `30s`, `5m`, `1h30m`, `14d`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// The units, longest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration in a configuration, with millisecond precision.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConfigDuration(Duration);

/// The text is not a duration.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a duration; write one as 500ms, 30s, 5m, 1h30m or 14d")]
pub struct ParseDurationError(String);

impl ConfigDuration {
    /// A duration of `count` milliseconds.
    #[must_use]
    pub const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }

    /// A duration of `count` seconds.
    #[must_use]
    pub const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// A duration of `count` minutes.
    #[must_use]
    pub const fn minutes(count: u64) -> Self {
        Self::seconds(count * 60)
    }

    /// A duration of `count` hours.
    #[must_use]
    pub const fn hours(count: u64) -> Self {
        Self::minutes(count * 60)
    }

    /// A duration of `count` days of 24 hours.
    #[must_use]
    pub const fn days(count: u64) -> Self {
        Self::hours(count * 24)
    }

    /// The value as a [`Duration`].
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<ConfigDuration> for Duration {
    fn from(duration: ConfigDuration) -> Self {
        duration.0
    }
}

impl From<ConfigDuration> for String {
    fn from(duration: ConfigDuration) -> Self {
        duration.to_string()
    }
}

impl TryFrom<String> for ConfigDuration {
    type Error = ParseDurationError;

    fn try_from(text: String) -> Result<Self, ParseDurationError> {
        text.parse()
    }
}

impl FromStr for ConfigDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, ParseDurationError> {
        parse(text.trim()).map(Self).ok_or_else(|| ParseDurationError(text.to_owned()))
    }
}

/// Parses numbers with units, each unit shorter than the one before.
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

impl fmt::Display for ConfigDuration {
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

impl fmt::Debug for ConfigDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigDuration({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_units_are_parsed() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("14d", 1_209_600_000),
            ("0", 0),
            (" 2s ", 2_000),
        ] {
            assert_eq!(text.parse::<ConfigDuration>().unwrap(), ConfigDuration::millis(millis), "{text}");
        }
    }

    #[test]
    fn invalid_durations_are_rejected() {
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
            assert!(text.parse::<ConfigDuration>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn displayed_durations_can_be_parsed(millis in 0u64..u64::MAX / 2) {
            let duration = ConfigDuration::millis(millis);
            proptest::prop_assert_eq!(duration.to_string().parse::<ConfigDuration>().unwrap(), duration);
        }

        #[test]
        fn the_parser_never_panics(text in ".{0,40}") {
            let _ = text.parse::<ConfigDuration>();
        }
    }
}
