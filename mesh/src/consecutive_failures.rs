//! The failure count of circuit breakers.

use std::sync::atomic::{AtomicU32, Ordering};

/// How many consecutive failures open a circuit breaker, unless it has a threshold of its own.
pub const FAILURE_THRESHOLD: u32 = 5;

/// Counts consecutive failures up to the threshold at which a circuit breaker opens.
#[derive(Debug)]
pub struct ConsecutiveFailures {
    count: AtomicU32,
    threshold: u32,
}

impl ConsecutiveFailures {
    /// No failures yet, with this threshold.
    #[must_use]
    pub fn with_threshold(threshold: u32) -> Self {
        Self { count: AtomicU32::new(0), threshold }
    }

    /// Records a success.
    pub fn succeeded(&self) {
        // The cache line is written only after a failure: reads are shared between cores.
        if self.count.load(Ordering::Relaxed) != 0 {
            self.count.store(0, Ordering::Relaxed);
        }
    }

    /// Records a failure. Returns whether the threshold is reached.
    pub fn failed(&self) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed) + 1 >= self.threshold
    }
}

/// With [`FAILURE_THRESHOLD`].
impl Default for ConsecutiveFailures {
    fn default() -> Self {
        Self::with_threshold(FAILURE_THRESHOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_consecutive_failures_reach_the_threshold() {
        let failures = ConsecutiveFailures::default();
        for _ in 0..3 {
            for _ in 1..FAILURE_THRESHOLD {
                assert!(!failures.failed());
            }
            failures.succeeded();
        }
        for _ in 1..FAILURE_THRESHOLD {
            assert!(!failures.failed());
        }
        assert!(failures.failed() && failures.failed(), "it stays reached until a success");
    }
}
