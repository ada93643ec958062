//! How long to wait before trying again.

use std::time::Duration;

/// How many failures in a row are news. A neighbour that starts or restarts causes a few, and nobody need read of them.
const LASTING: u32 = 5;

/// Waits that double from `first` to `longest`, each shortened by up to half at random, so that many who lost the same
/// server do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// It worked: the next wait is a short one again. Says whether that ends a trouble that [lasted](Self::is_lasting).
    pub(super) fn succeeded(&mut self) -> bool {
        let lasted = self.is_lasting();
        self.failures = 0;
        lasted
    }

    /// It failed once more: how long to wait.
    pub(super) fn failed(&mut self) -> Duration {
        let full = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(1.0 - random_fraction() / 2.0)
    }

    /// Whether it has failed so often that somebody should know.
    pub(super) fn is_lasting(&self) -> bool {
        self.failures >= LASTING
    }
}

/// From 0 up to 1. Without randomness from the system the waits are merely less spread.
fn random_fraction() -> f64 {
    let mut byte = [0];
    let _ = aws_lc_rs::rand::fill(&mut byte);
    f64::from(byte[0]) / 256.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn waits_double_up_to_the_longest_and_lose_at_most_half() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for full in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            let delay = backoff.failed();
            let full = Duration::from_millis(full);
            assert!(delay <= full && delay >= full / 2, "{delay:?} of {full:?}");
        }
        for _ in 0..100 {
            assert!(backoff.failed() <= LONGEST);
        }
    }

    #[test]
    fn a_success_ends_a_lasting_trouble_and_makes_the_waits_short_again() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        assert!(!backoff.succeeded());
        for _ in 0..LASTING {
            backoff.failed();
        }
        assert!(backoff.is_lasting());
        assert!(backoff.succeeded());
        assert!(!backoff.is_lasting());
        assert!(backoff.failed() <= FIRST);
    }
}
