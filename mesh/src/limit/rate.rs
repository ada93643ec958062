//! Rates, and the decisions of limiters.

use std::{num::NonZeroU32, time::Duration};

/// What a limit allows: a burst of attempts, and one more per interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The number of attempts allowed at once.
    pub burst: NonZeroU32,
    /// The time until one more attempt is allowed.
    pub interval: Duration,
}

/// The decision on an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is allowed, and has been counted.
    Allow,
    /// It is denied and not counted; it would be allowed after this time.
    RetryAfter(Duration),
}

impl Rate {
    /// A rate of `count` a minute, with a burst of `count`; `None` for 0.
    #[must_use]
    pub fn per_minute(count: u32) -> Option<Self> {
        let burst = NonZeroU32::new(count)?;
        // Whole microseconds, as in Redis, rounded up so that the rate is never exceeded.
        let micros = 60_000_000_u64.div_ceil(count.into());
        Some(Self { burst, interval: Duration::from_micros(micros) })
    }

    /// Half the burst, but at least one, at half the rate.
    #[must_use]
    pub fn halved(self) -> Self {
        let burst = NonZeroU32::new(self.burst.get() / 2).unwrap_or(NonZeroU32::MIN);
        Self { burst, interval: self.interval * 2 }
    }
}
