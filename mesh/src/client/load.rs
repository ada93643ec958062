//! The load of an endpoint: response time times calls in flight.
//!
//! The response time is a peak-sensitive moving average (Peak EWMA, as in Finagle and Linkerd): a slow response counts at
//! once and decays with later ones. A pending response counts too, so that a stall is noticed while it lasts. An idle
//! endpoint is measured by its health checks, and recovers by them.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// The time constant of the average: after it, an observation weighs about a third of a new one.
const DECAY: Duration = Duration::from_secs(1);

/// Response times below this are treated as equal, in seconds.
const MIN_RESPONSE_TIME: f64 = 1e-4;

/// The load of an endpoint.
#[derive(Debug)]
pub(super) struct Load {
    in_flight: AtomicUsize,
    average: Mutex<PeakEwma>,
}

/// A moving average of response times.
#[derive(Debug)]
struct PeakEwma {
    seconds: f64,
    /// The time of the last observation.
    measured: Instant,
    /// Since when calls in flight have been waiting: the last response or, after idleness, the first call.
    waiting_since: Instant,
}

impl Load {
    pub(super) fn new() -> Self {
        let average = PeakEwma::new(Instant::now());
        Self { in_flight: AtomicUsize::new(0), average: Mutex::new(average) }
    }

    /// The expected wait of one more call, without a unit: for comparison only.
    pub(super) fn cost(&self) -> f64 {
        self.cost_at(Instant::now())
    }

    fn cost_at(&self, now: Instant) -> f64 {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let average = self.average();
        let silence =
            if in_flight == 0 { 0.0 } else { now.saturating_duration_since(average.waiting_since).as_secs_f64() };
        #[allow(clippy::cast_precision_loss, reason = "no endpoint has so many calls in flight")]
        let calls = (in_flight + 1) as f64;
        average.seconds.max(silence).max(MIN_RESPONSE_TIME) * calls
    }

    /// Adds a call in flight until the result is dropped.
    pub(super) fn start_call(&self) -> InFlight<'_> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.average().waiting_since = Instant::now();
        }
        InFlight(self)
    }

    fn average(&self) -> MutexGuard<'_, PeakEwma> {
        self.average.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeakEwma {
    fn new(now: Instant) -> Self {
        Self { seconds: 0.0, measured: now, waiting_since: now }
    }

    fn observe(&mut self, seconds: f64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.measured).as_secs_f64();
        let weight = (-elapsed / DECAY.as_secs_f64()).exp();
        let mixed = self.seconds * weight + seconds * (1.0 - weight);
        *self = Self { seconds: mixed.max(seconds), measured: now, waiting_since: now };
    }
}

/// A call in flight.
#[derive(Debug)]
pub(super) struct InFlight<'a>(&'a Load);

impl InFlight<'_> {
    /// Records the response time, also of a cancelled call.
    pub(super) fn observe_response(&self, time: Duration) {
        self.0.average().observe(time.as_secs_f64(), Instant::now());
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn each_call_in_flight_adds_to_the_cost() {
        let load = Load::new();
        let idle = load.cost();
        let calls = [load.start_call(), load.start_call()];
        assert!(load.cost() >= 3.0 * idle);
        drop(calls);
        assert!((load.cost() / idle - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_slow_response_counts_at_once_and_decays_slowly() {
        let start = Instant::now();
        let mut average = PeakEwma::new(start);
        average.observe(0.001, start);
        average.observe(0.1, start + MILLI);
        assert!((average.seconds - 0.1).abs() < 1e-9);
        average.observe(0.001, start + 2 * MILLI);
        assert!(average.seconds > 0.09);
    }

    #[test]
    fn after_the_decay_time_one_fast_response_outweighs_a_slow_one() {
        let start = Instant::now();
        let mut average = PeakEwma::new(start);
        average.observe(1.0, start);
        average.observe(0.001, start + 10 * DECAY);
        assert!(average.seconds < 0.002);
    }

    #[test]
    fn an_idle_endpoint_recovers_with_one_fast_response() {
        let load = Load::new();
        load.start_call().observe_response(500 * MILLI);
        let slow = load.cost();
        load.average().measured -= 10 * DECAY;
        load.start_call().observe_response(MILLI);
        assert!(load.cost() < slow / 100.0);
    }

    #[test]
    fn a_pending_response_counts_only_while_a_call_waits() {
        let load = Load::new();
        let idle = load.cost_at(Instant::now() + DECAY);
        let call = load.start_call();
        assert!(load.cost_at(Instant::now() + DECAY) > 1000.0 * idle);
        drop(call);
        assert!((load.cost_at(Instant::now() + DECAY) / idle - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_slow_endpoint_has_a_higher_cost() {
        let (slow, quick) = (Load::new(), Load::new());
        slow.start_call().observe_response(50 * MILLI);
        quick.start_call().observe_response(MILLI);
        assert!(slow.cost() > quick.cost());
    }
}
