//! Whether an instance is called at all.
//!
//! One that cannot be reached is out at once, one that fails again and again as soon as that is plain. It comes back
//! when it answers a health check: no call of a user is spent on finding out. A denial is an answer like any other.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// How many consecutive failures open the breaker.
const FAILURE_THRESHOLD: u32 = 5;

/// For how long at least an instance is out that answers health checks and nothing else.
const HOLD: Duration = Duration::from_secs(1);

/// Whether an instance is called.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    is_open: AtomicBool,
    consecutive_failures: AtomicU32,
    /// Not to be closed before.
    held_until: Mutex<Option<Instant>>,
    tripped: Notify,
}

impl Breaker {
    /// Whether the instance is out.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// A call was answered.
    pub(super) fn succeeded(&self) {
        // Reading is shared between cores, writing is not.
        if self.consecutive_failures.load(Ordering::Relaxed) != 0 {
            self.consecutive_failures.store(0, Ordering::Relaxed);
        }
    }

    /// The instance said that it cannot, or nothing at all.
    pub(super) fn failed(&self) {
        if self.consecutive_failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURE_THRESHOLD {
            *self.lock() = Some(Instant::now() + HOLD);
            self.trip();
        }
    }

    /// The instance cannot be reached: it is out until it can.
    pub(super) fn trip(&self) {
        if !self.is_open.swap(true, Ordering::AcqRel) {
            self.tripped.notify_one();
        }
    }

    /// The instance is found well: it is called again, unless it is held out. Says whether it is called.
    pub(super) fn close(&self) -> bool {
        if !self.is_open() {
            return true;
        }
        let mut held_until = self.lock();
        if held_until.is_some_and(|until| until > Instant::now()) {
            return false;
        }
        *held_until = None;
        self.consecutive_failures.store(0, Ordering::Relaxed);
        self.is_open.store(false, Ordering::Release);
        true
    }

    /// Waits until the instance is put out by a call. One that was since this was last asked counts.
    pub(super) async fn tripped(&self) {
        self.tripped.notified().await;
    }

    /// How long it is still to be out whatever it says.
    pub(super) fn hold(&self) -> Option<Duration> {
        (*self.lock())?.checked_duration_since(Instant::now())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.held_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_consecutive_failures_put_an_instance_out_and_single_ones_do_not() {
        let breaker = Breaker::default();
        for _ in 0..20 {
            (1..FAILURE_THRESHOLD).for_each(|_| breaker.failed());
            breaker.succeeded();
        }
        assert!(!breaker.is_open());
        (0..FAILURE_THRESHOLD).for_each(|_| breaker.failed());
        assert!(breaker.is_open());
        assert!(breaker.hold().is_some_and(|hold| hold <= HOLD));
        assert!(!breaker.close() && breaker.is_open(), "it is held out, whatever it says of itself");
        *breaker.lock() = Some(Instant::now());
        assert!(breaker.close() && !breaker.is_open());
        breaker.failed();
        assert!(!breaker.is_open(), "it starts anew");
    }

    #[tokio::test]
    async fn whoever_watches_hears_of_each_trip_once() {
        let breaker = Breaker::default();
        breaker.trip();
        breaker.trip();
        breaker.tripped().await;
        assert!(tokio::time::timeout(Duration::from_millis(10), breaker.tripped()).await.is_err());
        assert_eq!(breaker.hold(), None, "who cannot be reached may come back at once");
    }
}
