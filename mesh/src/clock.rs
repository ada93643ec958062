//! The injected source of time: the system clock, or a manual clock in tests.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// A timestamp in UTC with microsecond precision, as in stores and messages.
pub type Timestamp = DateTime<Utc>;

/// A source of time. Clones share their state.
#[derive(Debug, Clone)]
pub struct Clock(ClockSource);

#[derive(Debug, Clone)]
enum ClockSource {
    System,
    Manual(Arc<ManualTime>),
}

#[derive(Debug)]
struct ManualTime {
    /// Microseconds since the Unix epoch.
    wall: AtomicI64,
    /// Microseconds since the start.
    elapsed: AtomicU64,
}

/// The origin of monotonic time.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock {
    /// The system clock.
    #[must_use]
    pub fn system() -> Self {
        Self(ClockSource::System)
    }

    /// A clock that shows `start` until it is advanced.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        let time = ManualTime { wall: AtomicI64::new(start.timestamp_micros()), elapsed: AtomicU64::new(0) };
        Self(ClockSource::Manual(Arc::new(time)))
    }

    /// The current time, truncated to microseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            ClockSource::System => Utc::now().trunc_subsecs(6),
            ClockSource::Manual(time) => {
                DateTime::from_timestamp_micros(time.wall.load(Ordering::SeqCst)).unwrap_or_default()
            }
        }
    }

    /// Time that only advances, whatever is done to the clock of the machine. Its origin is the same for all clocks of a
    /// process.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            ClockSource::System => ORIGIN.elapsed(),
            ClockSource::Manual(time) => Duration::from_micros(time.elapsed.load(Ordering::SeqCst)),
        }
    }

    /// Advances a manual clock; does nothing to the system clock.
    pub fn advance(&self, by: Duration) {
        if let ClockSource::Manual(time) = &self.0 {
            time.wall.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
            time.elapsed.fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// Sets a manual clock forward or back, as an operator or NTP does; does nothing to the system clock.
    pub fn set_by(&self, by: TimeDelta) {
        if let ClockSource::Manual(time) = &self.0 {
            time.wall.fetch_add(by.num_microseconds().unwrap_or_default(), Ordering::SeqCst);
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}
