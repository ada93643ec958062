//! What a limit allows.

use std::{num::NonZeroU32, time::Duration};

/// What a limit allows: so many attempts at once, and one more in each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many may come at once.
    pub burst: NonZeroU32,
    /// How long until one more may come.
    pub interval: Duration,
}

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass, and has been counted.
    Pass,
    /// It came too early by so long, and has not been counted.
    Wait(Duration),
}

impl Rate {
    /// So many a minute, which may come all at once; `None` for 0.
    #[must_use]
    pub fn per_minute(count: u32) -> Option<Self> {
        let burst = NonZeroU32::new(count)?;
        // Whole microseconds, which is how Redis counts, and never more than asked for.
        let micros = 60_000_000_u64.div_ceil(count.into());
        Some(Self { burst, interval: Duration::from_micros(micros) })
    }

    /// Half of the burst, but at least one, at half the rate.
    #[must_use]
    pub fn stricter(self) -> Self {
        let burst = NonZeroU32::new(self.burst.get() / 2).unwrap_or(NonZeroU32::MIN);
        Self { burst, interval: self.interval * 2 }
    }
}
