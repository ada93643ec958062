//! How busy an instance is: how long its answers take, times how many calls it has at hand.
//!
//! The time is a peak-sensitive moving average (Peak EWMA, as Finagle and Linkerd have it): a slow answer counts at
//! once, and is forgotten with later ones. An answer that has not come yet counts as well, so that a stall is noticed
//! while it lasts. An instance that nobody calls is measured by its health checks, and comes back into favour by them.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How long it takes until an observation is worth no more than a third of a new one. Calls take a millisecond: what was
/// a second ago is history.
const DECAY: Duration = Duration::from_secs(1);

/// What is quicker than this is as good as any other, in seconds.
const QUICK: f64 = 1e-4;

/// How busy an instance is.
#[derive(Debug)]
pub(super) struct Load {
    in_flight: AtomicUsize,
    average: Mutex<Average>,
}

/// A moving average of answer times.
#[derive(Debug)]
struct Average {
    seconds: f64,
    /// When that was last measured.
    measured: Instant,
    /// Since when those wait that have calls at hand: the last answer or, after idleness, the first call.
    waiting_since: Instant,
}

impl Load {
    pub(super) fn new() -> Self {
        let average = Average::new(Instant::now());
        Self { in_flight: AtomicUsize::new(0), average: Mutex::new(average) }
    }

    /// What one call more would wait for. It has no unit: it is there to be compared.
    pub(super) fn cost(&self) -> f64 {
        self.cost_at(Instant::now())
    }

    fn cost_at(&self, now: Instant) -> f64 {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let average = self.average();
        let silence =
            if in_flight == 0 { 0.0 } else { now.saturating_duration_since(average.waiting_since).as_secs_f64() };
        #[allow(clippy::cast_precision_loss, reason = "no instance has so many calls at hand")]
        let calls = (in_flight + 1) as f64;
        average.seconds.max(silence).max(QUICK) * calls
    }

    /// A call is at hand until this is dropped.
    pub(super) fn take_on(&self) -> InFlight<'_> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.average().waiting_since = Instant::now();
        }
        InFlight(self)
    }

    fn average(&self) -> MutexGuard<'_, Average> {
        self.average.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Average {
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

/// A call that an instance has at hand.
#[derive(Debug)]
pub(super) struct InFlight<'a>(&'a Load);

impl InFlight<'_> {
    /// It was answered after so long, or given up.
    pub(super) fn took(&self, time: Duration) {
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
    fn each_call_at_hand_adds_to_the_cost_until_it_is_dropped() {
        let load = Load::new();
        let idle = load.cost();
        let calls = [load.take_on(), load.take_on()];
        assert!(load.cost() >= 3.0 * idle);
        drop(calls);
        assert!((load.cost() / idle - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_quick_ones_bring_the_average_down_slowly() {
        let start = Instant::now();
        let mut average = Average::new(start);
        average.observe(0.001, start);
        average.observe(0.1, start + MILLI);
        assert!((average.seconds - 0.1).abs() < 1e-9);
        average.observe(0.001, start + 2 * MILLI);
        assert!(average.seconds > 0.09);
    }

    #[test]
    fn after_a_while_one_quick_answer_makes_up_for_a_slow_one() {
        let start = Instant::now();
        let mut average = Average::new(start);
        average.observe(1.0, start);
        average.observe(0.001, start + 10 * DECAY);
        assert!(average.seconds < 0.002);
    }

    #[test]
    fn an_idle_instance_that_was_slow_once_comes_back_into_favour_with_one_quick_answer() {
        let load = Load::new();
        load.take_on().took(500 * MILLI);
        let slow = load.cost();
        load.average().measured -= 10 * DECAY;
        load.take_on().took(MILLI);
        assert!(load.cost() < slow / 100.0);
    }

    #[test]
    fn silence_counts_while_somebody_waits_and_only_then() {
        let load = Load::new();
        let idle = load.cost_at(Instant::now() + DECAY);
        let call = load.take_on();
        assert!(load.cost_at(Instant::now() + DECAY) > 1000.0 * idle);
        drop(call);
        assert!((load.cost_at(Instant::now() + DECAY) / idle - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_slow_answer_makes_an_instance_dearer_than_one_that_was_quicker() {
        let (slow, quick) = (Load::new(), Load::new());
        slow.take_on().took(50 * MILLI);
        quick.take_on().took(MILLI);
        assert!(slow.cost() > quick.cost());
    }
}
