//! Conversions of timestamps: microseconds since the Unix epoch in stores, protobuf timestamps in messages.

use chrono::DateTime;

use crate::clock::Timestamp;

/// Converts from microseconds since the Unix epoch.
#[must_use]
pub fn from_micros(micros: i64) -> Timestamp {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

/// Converts to microseconds since the Unix epoch.
#[must_use]
pub fn to_micros(timestamp: Timestamp) -> i64 {
    timestamp.timestamp_micros()
}

/// Converts to a protobuf timestamp.
#[must_use]
pub fn to_proto(timestamp: Timestamp) -> prost_types::Timestamp {
    let micros = timestamp.timestamp_micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        // Below 10^9, so it fits.
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default(),
    }
}

/// Converts from a protobuf timestamp, truncated to microseconds; `None` if it is out of range.
#[must_use]
pub fn from_proto(timestamp: &prost_types::Timestamp) -> Option<Timestamp> {
    let nanos = u32::try_from(timestamp.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    DateTime::from_timestamp(timestamp.seconds, nanos / 1000 * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_lossless() {
        for micros in [0, 1, -1, 1_700_000_000_123_456, -62_135_596_800_000_000] {
            let timestamp = from_micros(micros);
            assert_eq!(to_micros(timestamp), micros);
            assert_eq!(from_proto(&to_proto(timestamp)), Some(timestamp));
        }
    }

    #[test]
    fn an_out_of_range_timestamp_is_none() {
        for (seconds, nanos) in [(i64::MAX, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(from_proto(&prost_types::Timestamp { seconds, nanos }), None);
        }
    }
}
