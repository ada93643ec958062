//! Moments as stores keep them, microseconds since 1970, and as messages carry them.

use chrono::DateTime;

use crate::clock::Timestamp;

/// The moment that a column holds.
#[must_use]
pub fn from_micros(micros: i64) -> Timestamp {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

/// What a column holds of a moment.
#[must_use]
pub fn to_micros(moment: Timestamp) -> i64 {
    moment.timestamp_micros()
}

/// A moment as messages carry it.
#[must_use]
pub fn to_proto(moment: Timestamp) -> prost_types::Timestamp {
    let micros = moment.timestamp_micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        // Below a thousand million, so that it fits.
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default(),
    }
}

/// The moment that a message carries, to the microsecond; `None` where it lies outside the calendar.
#[must_use]
pub fn from_proto(moment: &prost_types::Timestamp) -> Option<Timestamp> {
    let nanos = u32::try_from(moment.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    DateTime::from_timestamp(moment.seconds, nanos / 1000 * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_the_way_into_a_store_and_a_message() {
        for micros in [0, 1, -1, 1_700_000_000_123_456, -62_135_596_800_000_000] {
            let moment = from_micros(micros);
            assert_eq!(to_micros(moment), micros);
            assert_eq!(from_proto(&to_proto(moment)), Some(moment));
        }
    }

    #[test]
    fn a_moment_outside_the_calendar_is_none() {
        for (seconds, nanos) in [(i64::MAX, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(from_proto(&prost_types::Timestamp { seconds, nanos }), None);
        }
    }
}
