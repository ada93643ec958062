//! The circuit breaker of an endpoint.
//!
//! An unreachable endpoint is ejected at once, a failing one after several [consecutive failures](ConsecutiveFailures). It is
//! readmitted by successful health checks, so that no user's call is spent on probing. A denial is not a failure.
//!
//! ```text
//! closed -- unreachable, or failure_threshold --> open -- open_time --> half-open -- success_threshold --> closed
//!                                                  ^---- failed check ----'
//! ```

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::Notify;

use super::peer::BreakerSettings;
use crate::consecutive_failures::ConsecutiveFailures;

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum BreakerState {
    /// The endpoint is called.
    Closed,
    /// It is ejected.
    Open,
    /// It is ejected, and the health checks that decide about it have begun.
    HalfOpen,
}

impl BreakerState {
    /// All states.
    pub(super) const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    fn of(value: u8) -> Self {
        match value {
            0 => Self::Closed,
            1 => Self::Open,
            _ => Self::HalfOpen,
        }
    }
}

/// Whether an endpoint is ejected.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    state: AtomicU8,
    failures: ConsecutiveFailures,
    /// Successful health checks since it is half-open.
    successes: AtomicU32,
    /// The end of the minimum ejection.
    ejected_until: Mutex<Option<Instant>>,
    tripped: Notify,
}

impl Breaker {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: AtomicU8::new(BreakerState::Closed as u8),
            failures: ConsecutiveFailures::with_threshold(settings.failure_threshold),
            successes: AtomicU32::new(0),
            ejected_until: Mutex::default(),
            tripped: Notify::new(),
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        BreakerState::of(self.state.load(Ordering::Acquire))
    }

    /// Whether the endpoint is ejected.
    pub(super) fn is_open(&self) -> bool {
        self.state() != BreakerState::Closed
    }

    /// Records a successful call.
    pub(super) fn succeeded(&self) {
        self.failures.succeeded();
    }

    /// Records a failed call.
    pub(super) fn failed(&self) {
        if self.failures.failed() {
            *self.lock() = Some(Instant::now() + self.settings.open_time);
            self.trip();
        }
    }

    /// Ejects the endpoint until health checks succeed.
    pub(super) fn trip(&self) {
        if self.state.swap(BreakerState::Open as u8, Ordering::AcqRel) == BreakerState::Closed as u8 {
            self.tripped.notify_one();
        }
    }

    /// A health check begins. An open breaker becomes half-open when its minimum ejection is over. Returns whether it did.
    pub(super) fn probe_starts(&self) -> bool {
        if self.state() != BreakerState::Open || self.remaining_ejection().is_some() {
            return false;
        }
        self.successes.store(0, Ordering::Relaxed);
        self.replace(BreakerState::Open, BreakerState::HalfOpen)
    }

    /// A health check has succeeded: readmits the endpoint if it is half-open and the check was the last one needed. Returns
    /// whether the endpoint is called.
    pub(super) fn probe_succeeded(&self) -> bool {
        match self.state() {
            BreakerState::Closed => return true,
            // A call has ejected the endpoint during the check.
            BreakerState::Open => return false,
            BreakerState::HalfOpen => {}
        }
        if self.successes.fetch_add(1, Ordering::Relaxed) + 1 < self.settings.success_threshold {
            return false;
        }
        *self.lock() = None;
        self.failures.succeeded();
        self.replace(BreakerState::HalfOpen, BreakerState::Closed)
    }

    fn replace(&self, from: BreakerState, to: BreakerState) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Waits until a call ejects the endpoint. An ejection since the last wait counts.
    pub(super) async fn tripped(&self) {
        self.tripped.notified().await;
    }

    /// The rest of the minimum ejection.
    pub(super) fn remaining_ejection(&self) -> Option<Duration> {
        (*self.lock())?.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.ejected_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consecutive_failures::FAILURE_THRESHOLD;

    fn breaker(success_threshold: u32) -> Breaker {
        Breaker::new(BreakerSettings { success_threshold, ..BreakerSettings::default() })
    }

    #[test]
    fn consecutive_failures_eject_an_endpoint_and_single_ones_do_not() {
        let breaker = breaker(1);
        for _ in 0..20 {
            (1..FAILURE_THRESHOLD).for_each(|_| breaker.failed());
            breaker.succeeded();
        }
        assert!(!breaker.is_open());
        (0..FAILURE_THRESHOLD).for_each(|_| breaker.failed());
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.remaining_ejection().is_some_and(|rest| rest <= BreakerSettings::default().open_time));
        assert!(!breaker.probe_starts() && !breaker.probe_succeeded(), "the minimum ejection is not over");
        *breaker.lock() = Some(Instant::now());
        assert!(breaker.probe_starts());
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.probe_succeeded() && !breaker.is_open());
        breaker.failed();
        assert!(!breaker.is_open(), "the count restarts");
    }

    #[test]
    fn a_half_open_breaker_closes_after_consecutive_successes() {
        let breaker = breaker(3);
        breaker.trip();
        assert!(breaker.probe_starts() && !breaker.probe_succeeded() && !breaker.probe_succeeded());
        breaker.trip();
        assert_eq!(breaker.state(), BreakerState::Open, "a failed check");
        assert!(breaker.probe_starts() && !breaker.probe_succeeded() && !breaker.probe_succeeded());
        assert!(breaker.probe_succeeded());
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn an_ejection_during_a_check_stays() {
        let breaker = breaker(1);
        breaker.trip();
        assert!(breaker.probe_starts());
        breaker.trip();
        assert!(!breaker.probe_succeeded());
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[tokio::test]
    async fn each_ejection_is_notified_once() {
        let breaker = breaker(1);
        breaker.trip();
        breaker.trip();
        breaker.tripped().await;
        assert!(tokio::time::timeout(Duration::from_millis(10), breaker.tripped()).await.is_err());
        assert_eq!(breaker.remaining_ejection(), None, "an unreachable endpoint has no minimum ejection");
    }
}
