//! Delays between retries.

use std::time::Duration;

/// Consecutive failures before a warning is logged. A service that starts or restarts causes a few.
const WARN_THRESHOLD: u32 = 5;

/// Exponential backoff with jitter: delays double from `min` to `max`, each shortened by up to half at random, so that
/// clients of a failed server do not reconnect at the same time.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// A backoff with delays between `min` and `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// Records a success, which resets the delay. Returns whether it ends a [lasting](Self::is_lasting) failure.
    pub fn succeeded(&mut self) -> bool {
        let lasted = self.is_lasting();
        self.failures = 0;
        lasted
    }

    /// Records a failure, and returns the delay before the next attempt.
    pub fn failed(&mut self) -> Duration {
        let full = self.min.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(1.0 - fastrand::f64() / 2.0)
    }

    /// Whether there have been enough consecutive failures to log a warning.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.failures >= WARN_THRESHOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(2);

    #[test]
    fn delays_double_up_to_the_maximum_with_jitter_of_at_most_half() {
        let mut backoff = Backoff::new(MIN, MAX);
        for full in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            let delay = backoff.failed();
            let full = Duration::from_millis(full);
            assert!(delay <= full && delay >= full / 2, "{delay:?} of {full:?}");
        }
        for _ in 0..100 {
            assert!(backoff.failed() <= MAX);
        }
    }

    #[test]
    fn a_success_ends_a_lasting_failure_and_resets_the_delay() {
        let mut backoff = Backoff::new(MIN, MAX);
        assert!(!backoff.succeeded());
        for _ in 0..WARN_THRESHOLD {
            backoff.failed();
        }
        assert!(backoff.is_lasting());
        assert!(backoff.succeeded());
        assert!(!backoff.is_lasting());
        assert!(backoff.failed() <= MIN);
    }
}
