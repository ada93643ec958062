//! The circuit breaker of an endpoint.
//!
//! An unreachable endpoint is ejected at once, a failing one after [`FAILURE_THRESHOLD`] consecutive failures. It is
//! readmitted by a successful health check, so that no user's call is spent on probing. A denial is not a failure.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// The consecutive failures that eject an endpoint.
const FAILURE_THRESHOLD: u32 = 5;

/// The minimum ejection after consecutive failures, for an endpoint that answers health checks and no calls.
const MIN_EJECTION_TIME: Duration = Duration::from_secs(1);

/// Whether an endpoint is ejected.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    is_open: AtomicBool,
    consecutive_failures: AtomicU32,
    /// The end of the minimum ejection.
    ejected_until: Mutex<Option<Instant>>,
    tripped: Notify,
}

impl Breaker {
    /// Whether the endpoint is ejected.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Records a successful call.
    pub(super) fn succeeded(&self) {
        // The cache line is written only after a failure: reads are shared between cores.
        if self.consecutive_failures.load(Ordering::Relaxed) != 0 {
            self.consecutive_failures.store(0, Ordering::Relaxed);
        }
    }

    /// Records a failed call.
    pub(super) fn failed(&self) {
        if self.consecutive_failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURE_THRESHOLD {
            *self.lock() = Some(Instant::now() + MIN_EJECTION_TIME);
            self.trip();
        }
    }

    /// Ejects the endpoint until a health check succeeds.
    pub(super) fn trip(&self) {
        if !self.is_open.swap(true, Ordering::AcqRel) {
            self.tripped.notify_one();
        }
    }

    /// Readmits the endpoint after a successful health check, unless its minimum ejection is not over. Returns whether it is
    /// called.
    pub(super) fn close(&self) -> bool {
        if !self.is_open() {
            return true;
        }
        let mut ejected_until = self.lock();
        if ejected_until.is_some_and(|until| until > Instant::now()) {
            return false;
        }
        *ejected_until = None;
        self.consecutive_failures.store(0, Ordering::Relaxed);
        self.is_open.store(false, Ordering::Release);
        true
    }

    /// Waits until a call ejects the endpoint. An ejection since the last wait counts.
    pub(super) async fn tripped(&self) {
        self.tripped.notified().await;
    }

    /// The rest of the minimum ejection.
    pub(super) fn remaining_ejection(&self) -> Option<Duration> {
        (*self.lock())?.checked_duration_since(Instant::now())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.ejected_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_failures_eject_an_endpoint_and_single_ones_do_not() {
        let breaker = Breaker::default();
        for _ in 0..20 {
            (1..FAILURE_THRESHOLD).for_each(|_| breaker.failed());
            breaker.succeeded();
        }
        assert!(!breaker.is_open());
        (0..FAILURE_THRESHOLD).for_each(|_| breaker.failed());
        assert!(breaker.is_open());
        assert!(breaker.remaining_ejection().is_some_and(|hold| hold <= MIN_EJECTION_TIME));
        assert!(!breaker.close() && breaker.is_open(), "it is held out, whatever it says of itself");
        *breaker.lock() = Some(Instant::now());
        assert!(breaker.close() && !breaker.is_open());
        breaker.failed();
        assert!(!breaker.is_open(), "it starts anew");
    }

    #[tokio::test]
    async fn each_ejection_is_notified_once() {
        let breaker = Breaker::default();
        breaker.trip();
        breaker.trip();
        breaker.tripped().await;
        assert!(tokio::time::timeout(Duration::from_millis(10), breaker.tripped()).await.is_err());
        assert_eq!(breaker.remaining_ejection(), None, "who cannot be reached may come back at once");
    }
}
