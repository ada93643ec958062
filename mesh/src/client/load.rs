//! How busy an instance is: how long its answers take, times how many calls it has at hand.
//!
//! The time is a peak-sensitive moving average (Peak EWMA, as Finagle and Linkerd have it): a slow answer counts at
//! once, and is forgotten over time. So a stall is noticed by the first call that meets it, and an instance that is
//! called no more comes back into favour.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How long it takes until an observation is worth no more than a third. Calls take a millisecond: what was a second
/// ago is history.
const DECAY: Duration = Duration::from_secs(1);

/// How busy an instance is.
#[derive(Debug)]
pub(super) struct Load {
    at_hand: AtomicUsize,
    average: Mutex<Average>,
}

/// A moving average of answer times.
#[derive(Debug)]
struct Average {
    seconds: f64,
    at: Instant,
}

impl Load {
    pub(super) fn new() -> Self {
        let average = Average { seconds: 0.0, at: Instant::now() };
        Self { at_hand: AtomicUsize::new(0), average: Mutex::new(average) }
    }

    /// What one call more would wait for. It has no unit: it is there to be compared.
    pub(super) fn cost(&self) -> f64 {
        let at_hand = self.at_hand.load(Ordering::Relaxed);
        let seconds = self.average.lock().unwrap_or_else(PoisonError::into_inner).fade(Instant::now());
        // One that has not been measured lately has at least a cost by its calls.
        let seconds = seconds.max(1e-6);
        #[allow(clippy::cast_precision_loss, reason = "so many calls are at no instance's hand")]
        let cost = seconds * (at_hand + 1) as f64;
        cost
    }

    /// A call is at hand until the answer is dropped.
    pub(super) fn take_on(&self) -> AtHand<'_> {
        self.at_hand.fetch_add(1, Ordering::Relaxed);
        AtHand(self)
    }
}

impl Average {
    /// What the average has come down to by now.
    fn fade(&self, now: Instant) -> f64 {
        self.seconds * weight(now.saturating_duration_since(self.at))
    }

    fn observe(&mut self, seconds: f64, now: Instant) {
        let weight = weight(now.saturating_duration_since(self.at));
        let mixed = self.seconds * weight + seconds * (1.0 - weight);
        (self.seconds, self.at) = (mixed.max(seconds), now);
    }
}

/// What is left of an observation after so long.
fn weight(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

/// A call that an instance has at hand.
#[derive(Debug)]
pub(super) struct AtHand<'a>(&'a Load);

impl AtHand<'_> {
    /// It was answered after so long.
    pub(super) fn answered(&self, after: Duration) {
        let mut average = self.0.average.lock().unwrap_or_else(PoisonError::into_inner);
        average.observe(after.as_secs_f64(), Instant::now());
    }
}

impl Drop for AtHand<'_> {
    fn drop(&mut self) {
        self.0.at_hand.fetch_sub(1, Ordering::Relaxed);
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
        assert!((load.cost() / idle - 3.0).abs() < 1e-9);
        drop(calls);
        assert!((load.cost() / idle - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_quick_ones_bring_the_average_down_slowly() {
        let start = Instant::now();
        let mut average = Average { seconds: 0.0, at: start };
        average.observe(0.001, start);
        average.observe(0.1, start + MILLI);
        assert!((average.fade(start + MILLI) - 0.1).abs() < 1e-9);
        average.observe(0.001, start + 2 * MILLI);
        assert!(average.seconds > 0.09);
    }

    #[test]
    fn what_is_not_measured_again_is_forgotten() {
        let start = Instant::now();
        let mut average = Average { seconds: 0.0, at: start };
        average.observe(1.0, start);
        assert!((average.fade(start + DECAY) - (-1.0_f64).exp()).abs() < 1e-9);
        assert!(average.fade(start + 20 * DECAY) < 1e-6);
    }

    #[test]
    fn an_answer_makes_an_instance_dearer_than_one_that_was_quicker() {
        let (slow, quick) = (Load::new(), Load::new());
        slow.take_on().answered(50 * MILLI);
        quick.take_on().answered(MILLI);
        assert!(slow.cost() > quick.cost());
    }
}
