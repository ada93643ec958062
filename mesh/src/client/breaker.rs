//! The circuit breaker of an endpoint.
//!
//! An unreachable endpoint is ejected at once, a failing one after several [consecutive failures](ConsecutiveFailures). It is
//! readmitted by a successful health check, so that no user's call is spent on probing. A denial is not a failure.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::consecutive_failures::ConsecutiveFailures;

/// The minimum ejection after consecutive failures, for an endpoint that answers health checks and no calls.
const MIN_EJECTION_TIME: Duration = Duration::from_secs(1);

/// Whether an endpoint is ejected.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    is_open: AtomicBool,
    failures: ConsecutiveFailures,
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
        self.failures.succeeded();
    }

    /// Records a failed call.
    pub(super) fn failed(&self) {
        if self.failures.failed() {
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
        self.failures.succeeded();
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
    use crate::consecutive_failures::FAILURE_THRESHOLD;

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
        assert!(!breaker.close() && breaker.is_open(), "the minimum ejection is not over");
        *breaker.lock() = Some(Instant::now());
        assert!(breaker.close() && !breaker.is_open());
        breaker.failed();
        assert!(!breaker.is_open(), "the count restarts");
    }

    #[tokio::test]
    async fn each_ejection_is_notified_once() {
        let breaker = Breaker::default();
        breaker.trip();
        breaker.trip();
        breaker.tripped().await;
        assert!(tokio::time::timeout(Duration::from_millis(10), breaker.tripped()).await.is_err());
        assert_eq!(breaker.remaining_ejection(), None, "an unreachable endpoint has no minimum ejection");
    }
}
