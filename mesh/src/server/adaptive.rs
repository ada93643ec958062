//! The limit of calls in flight that follows latency.
//!
//! Above its capacity, a server only makes calls wait for each other. The limit is lowered then, so that some calls are refused at
//! once and the others stay quick. The algorithm is that of Gradient2 in Netflix's `concurrency-limits`
//! (<https://github.com/Netflix/concurrency-limits>): the limit is multiplied by the ratio of the usual latency to the present
//! one. Envoy's adaptive concurrency filter measures the minimal latency instead, for which it has to reduce the load every
//! minute, and so refuses calls of a healthy server.
//!
//! Three things differ from Gradient2:
//!
//! - Latencies are compared for each RPC. A sign-in takes a hundred times as long as a lookup, so a mean over all calls would
//!   follow what is called rather than how it is served.
//! - A lowered limit rises again when calls are quick, also without load. Otherwise the first peak after an incident would be refused.
//! - A call that fails is no sample, unless it exceeded its deadline: most failures are quick.
//!
//! It is lowered only while calls use at least half of it, and never below [`ServerLimits::min_in_flight`]. A server with fewer calls in
//! flight refuses none for this reason, however slow they are: waiting for something slow, such as a database, is no overload.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::ServerLimits;

/// The interval of updates.
pub(super) const INTERVAL: Duration = Duration::from_millis(500);

/// A present latency up to this multiple of the usual one is normal.
const TOLERANCE: f64 = 2.0;

/// The weight of the newest mean in the usual latency: a time constant of five minutes.
const BASELINE_WEIGHT: f64 = 1.0 / 600.0;

/// After how many updates the usual latency of an RPC is known.
const WARM_UP: u32 = 10;

/// How many samples an update takes at least.
const MIN_SAMPLES: u64 = 20;

/// How much of a lower limit counts at once.
const SMOOTHING: f64 = 0.2;

/// The largest decrease of an update, before it is smoothed.
const MIN_GRADIENT: f64 = 0.5;

/// The latencies of one RPC since the last update.
#[derive(Debug, Default)]
pub(super) struct LatencyWindow {
    count: AtomicU64,
    micros: AtomicU64,
}

/// Some calls of one RPC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Samples {
    pub(super) count: u64,
    /// In seconds.
    pub(super) mean: f64,
}

impl LatencyWindow {
    pub(super) fn observe(&self, elapsed: Duration) {
        self.micros.fetch_add(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Relaxed);
        self.count.fetch_add(1, Relaxed);
    }

    /// The latencies since the last time.
    pub(super) fn take(&self) -> Option<Samples> {
        let count = self.count.swap(0, Relaxed);
        let sum = Duration::from_micros(self.micros.swap(0, Relaxed));
        (count > 0).then(|| Samples { count, mean: sum.as_secs_f64() / as_float(count) })
    }
}

/// The limit, and the usual latency of each RPC.
#[derive(Debug)]
pub(super) struct AdaptiveLimit {
    min: f64,
    max: f64,
    limit: f64,
    baselines: Vec<Baseline>,
}

/// The usual latency of one RPC.
#[derive(Debug, Clone, Copy, Default)]
struct Baseline {
    /// In seconds.
    mean: f64,
    updates: u32,
}

/// The state after an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Update {
    /// Calls in flight.
    pub(super) limit: usize,
    /// The present latency, as a multiple of the usual one; 1 if there are too few samples.
    pub(super) latency_ratio: f64,
}

impl AdaptiveLimit {
    /// The limit of a server with so many RPCs. `None` if it does not follow latency.
    pub(super) fn new(limits: &ServerLimits, rpcs: usize) -> Option<Self> {
        let max = limits.max_in_flight;
        let min = limits.min_in_flight?.clamp(1, max.max(1));
        let (min, max) = (as_float(min as u64), as_float(max as u64));
        Some(Self { min, max, limit: max, baselines: vec![Baseline::default(); rpcs] })
    }

    /// Updates the limit with the samples of each RPC. `is_loaded` says whether calls use half of the limit.
    pub(super) fn update(&mut self, samples: &[Option<Samples>], is_loaded: bool) -> Update {
        let (mut count, mut present, mut usual) = (0, 0.0, 0.0);
        for (baseline, samples) in self.baselines.iter_mut().zip(samples) {
            let Some(samples) = samples else { continue };
            if baseline.updates >= WARM_UP {
                count += samples.count;
                present += as_float(samples.count) * samples.mean;
                usual += as_float(samples.count) * baseline.mean;
            }
            baseline.add(samples.mean);
        }
        let is_known = count >= MIN_SAMPLES && usual > 0.0;
        let latency_ratio = if is_known { present / usual } else { 1.0 };
        if latency_ratio > TOLERANCE {
            if is_loaded {
                let gradient = (TOLERANCE / latency_ratio).max(MIN_GRADIENT);
                self.limit *= 1.0 - SMOOTHING * (1.0 - gradient);
            }
        } else if is_known || !is_loaded {
            // A server on which nothing is answered any more has no samples, and its limit stays.
            self.limit += self.limit.sqrt();
        }
        self.limit = self.limit.clamp(self.min, self.max);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from `min` to `max`")]
        let limit = self.limit as usize;
        Update { limit, latency_ratio }
    }
}

impl Baseline {
    fn add(&mut self, mean: f64) {
        self.updates = self.updates.saturating_add(1);
        // The plain mean of the first ones.
        let weight = if self.updates <= WARM_UP { 1.0 / f64::from(self.updates) } else { BASELINE_WEIGHT };
        self.mean += (mean - self.mean) * weight;
        // After an incident that has lasted, calls are much quicker than what has become usual.
        if self.mean > 2.0 * mean {
            self.mean *= 0.95;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: f64 = 0.001;

    /// A limit from 100 to 1000, of two RPCs.
    fn limit() -> AdaptiveLimit {
        let limits = ServerLimits { max_in_flight: 1000, min_in_flight: Some(100), ..ServerLimits::default() };
        AdaptiveLimit::new(&limits, 2).unwrap()
    }

    #[expect(clippy::unnecessary_wraps, reason = "an RPC may have none")]
    fn calls(count: u64, mean: f64) -> Option<Samples> {
        Some(Samples { count, mean })
    }

    /// The limit after so many updates with the same samples.
    fn after(limit: &mut AdaptiveLimit, updates: usize, samples: [Option<Samples>; 2], is_loaded: bool) -> usize {
        (0..updates).map(|_| limit.update(&samples, is_loaded).limit).last().unwrap()
    }

    /// A limit whose RPCs usually take a millisecond, and sixty.
    fn warm() -> AdaptiveLimit {
        let mut limit = limit();
        assert_eq!(after(&mut limit, 100, [calls(500, QUICK), calls(10, 60.0 * QUICK)], true), 1000);
        limit
    }

    #[test]
    fn a_healthy_server_keeps_its_limit_under_load() {
        let mut limit = warm();
        for wave in 0..100 {
            let mean = QUICK * if wave % 2 == 0 { 0.6 } else { 1.6 };
            assert_eq!(after(&mut limit, 1, [calls(500, mean), None], true), 1000);
        }
    }

    #[test]
    fn slow_calls_lower_the_limit_to_its_lower_bound_and_no_further() {
        let mut limit = warm();
        let first = after(&mut limit, 1, [calls(500, 10.0 * QUICK), None], true);
        assert!((850..1000).contains(&first), "a tenth at a time: {first}");
        assert_eq!(after(&mut limit, 60, [calls(500, 10.0 * QUICK), None], true), 100);
        let Update { limit, latency_ratio } = limit.update(&[calls(500, 10.0 * QUICK), None], true);
        assert!(limit == 100 && latency_ratio > TOLERANCE);
    }

    #[test]
    fn the_limit_rises_when_calls_are_quick_with_and_without_load() {
        for samples in [[calls(500, QUICK), None], [None, None]] {
            let mut limit = warm();
            assert_eq!(after(&mut limit, 60, [calls(500, 10.0 * QUICK), None], true), 100);
            let is_loaded = samples[0].is_some();
            assert_eq!(after(&mut limit, 60, samples, is_loaded), 1000, "within half a minute");
        }
    }

    #[test]
    fn a_limit_that_is_not_used_is_not_lowered() {
        let mut limit = warm();
        assert_eq!(after(&mut limit, 100, [calls(500, 50.0 * QUICK), None], false), 1000);
    }

    #[test]
    fn a_change_of_what_is_called_is_no_change_of_latency() {
        let mut limit = warm();
        let most_are_slow_ones = [calls(10, QUICK), calls(500, 60.0 * QUICK)];
        assert_eq!(after(&mut limit, 50, most_are_slow_ones, true), 1000);
    }

    #[test]
    fn few_samples_change_nothing_under_load() {
        let mut limit = warm();
        assert_eq!(after(&mut limit, 20, [calls(MIN_SAMPLES - 1, 100.0 * QUICK), None], true), 1000);
        after(&mut limit, 20, [calls(500, 10.0 * QUICK), None], true);
        let lowered = after(&mut limit, 1, [None, None], true);
        assert_eq!(after(&mut limit, 20, [None, None], true), lowered, "nothing is answered");
    }

    #[test]
    fn a_latency_that_stays_becomes_the_usual_one() {
        let mut limit = warm();
        assert!(after(&mut limit, 30, [calls(500, 3.0 * QUICK), None], true) < 300);
        assert_eq!(after(&mut limit, 600, [calls(500, 3.0 * QUICK), None], true), 1000, "within five minutes");
    }

    #[test]
    fn a_window_is_taken_once() {
        let window = LatencyWindow::default();
        assert!(window.take().is_none());
        window.observe(Duration::from_millis(1));
        window.observe(Duration::from_millis(3));
        let Samples { count, mean } = window.take().unwrap();
        assert!(count == 2 && (mean - 0.002).abs() < 1e-9);
        assert!(window.take().is_none());
    }

    #[test]
    fn a_small_server_has_a_fixed_limit() {
        let limits = ServerLimits { max_in_flight: 1, min_in_flight: Some(128), ..ServerLimits::default() };
        let mut limit = AdaptiveLimit::new(&limits, 1).unwrap();
        assert_eq!(limit.update(&[None], true).limit, 1);
        let fixed = ServerLimits { min_in_flight: None, ..ServerLimits::default() };
        assert!(AdaptiveLimit::new(&fixed, 1).is_none());
    }

    proptest::proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(
            steps in proptest::collection::vec((0_u64..1000, 0.0_f64..10.0, proptest::bool::ANY), 1..300),
        ) {
            let mut limit = limit();
            for (count, mean, is_loaded) in steps {
                let samples = (count > 0).then_some(Samples { count, mean });
                let update = limit.update(&[samples, None], is_loaded);
                proptest::prop_assert!((100..=1000).contains(&update.limit));
                proptest::prop_assert!(update.latency_ratio.is_finite());
            }
        }
    }
}
