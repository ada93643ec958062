//! Metrics of this service. Mesh records those of its calls.

mod second_factors;
pub(crate) mod signing_keys;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drystone_mesh::{clock::Clock, telemetry::Metrics};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
};

pub use self::second_factors::FactorMetrics;

/// Histogram buckets in seconds: a hash takes 10 to 100 ms, a wait in the queue lasts until the deadline at most.
const BUCKETS: [f64; 11] = [0.001, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabels {
    reason: &'static str,
}

/// Metrics of the hashing pool. Clones share their values.
#[derive(Debug, Clone)]
pub struct HashingMetrics {
    queue_length: Gauge,
    queue_wait: Histogram,
    hash_duration: Histogram,
    queue_full: Counter,
    deadline_exceeded: Counter,
    cancelled: Counter,
}

impl HashingMetrics {
    /// Registers the metrics.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let dropped = Family::<DroppedLabels, Counter>::default();
        let dropped_for = |reason| dropped.get_or_create_owned(&DroppedLabels { reason });
        let this = Self {
            queue_length: Gauge::default(),
            queue_wait: Histogram::new(BUCKETS),
            hash_duration: Histogram::new(BUCKETS),
            queue_full: dropped_for("queue_full"),
            deadline_exceeded: dropped_for("deadline_exceeded"),
            cancelled: dropped_for("cancelled"),
        };
        metrics.register(|registry| {
            registry.register(
                "drystone_password_hash_queue_length",
                "Passwords in the hashing queue",
                this.queue_length.clone(),
            );
            registry.register(
                "drystone_password_hash_queue_wait_seconds",
                "Time in the hashing queue",
                this.queue_wait.clone(),
            );
            registry.register(
                "drystone_password_hash_duration_seconds",
                "Time to hash a password",
                this.hash_duration.clone(),
            );
            registry.register("drystone_password_hashes_dropped", "Passwords that were not hashed, by reason", dropped);
        });
        this
    }

    pub(crate) fn set_queue_length(&self, length: usize) {
        self.queue_length.set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    pub(crate) fn observe_queue_wait(&self, wait: Duration) {
        self.queue_wait.observe(wait.as_secs_f64());
    }

    pub(crate) fn observe_hash(&self, duration: Duration) {
        self.hash_duration.observe(duration.as_secs_f64());
    }

    pub(crate) fn count_queue_full(&self) {
        self.queue_full.inc();
    }

    pub(crate) fn count_deadline_exceeded(&self) {
        self.deadline_exceeded.inc();
    }

    pub(crate) fn count_cancelled(&self) {
        self.cancelled.inc();
    }
}

/// The time over which the ratio of failed sign-ins is computed, in buckets of a minute.
const WINDOW_MINUTES: u64 = 5;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Counts sign-ins. Clones share their values.
#[derive(Debug, Clone)]
pub struct SignInMetrics {
    succeeded: Counter,
    failed: Counter,
    window: Arc<Window>,
}

impl SignInMetrics {
    /// Registers the metrics.
    #[must_use]
    pub fn new(metrics: &Metrics, clock: Clock) -> Self {
        let counts = Family::<OutcomeLabels, Counter>::default();
        let counts_of = |outcome| counts.get_or_create_owned(&OutcomeLabels { outcome });
        let this = Self {
            succeeded: counts_of("succeeded"),
            failed: counts_of("failed"),
            window: Arc::new(Window { clock, minutes: Mutex::default() }),
        };
        metrics.register(|registry| {
            registry.register(
                "drystone_sign_ins",
                "Sign-ins, by outcome; without those that failed for other reasons",
                counts,
            );
            registry.register_collector(Box::new(FailureRatio(Arc::clone(&this.window))));
        });
        this
    }

    /// Counts a sign-in.
    pub(crate) fn record(&self, succeeded: bool) {
        if succeeded {
            self.succeeded.inc()
        } else {
            self.failed.inc()
        };
        self.window.record(succeeded);
    }
}

/// The sign-ins of the last minutes.
#[derive(Debug)]
struct Window {
    clock: Clock,
    /// The minute, and how many succeeded and failed in it; oldest first.
    minutes: Mutex<VecDeque<(u64, u64, u64)>>,
}

impl Window {
    /// The sign-ins of the last minutes that succeeded and failed.
    fn with_current<T>(&self, use_minutes: impl FnOnce(&mut VecDeque<(u64, u64, u64)>) -> T) -> T {
        let now = u64::try_from(self.clock.now().timestamp()).unwrap_or_default() / 60;
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        minutes.retain(|(minute, ..)| *minute <= now && *minute + WINDOW_MINUTES > now);
        if minutes.back().is_none_or(|(minute, ..)| *minute != now) {
            minutes.push_back((now, 0, 0));
        }
        use_minutes(&mut minutes)
    }

    fn record(&self, succeeded: bool) {
        self.with_current(|minutes| {
            if let Some((_, successes, failures)) = minutes.back_mut() {
                *(if succeeded { successes } else { failures }) += 1;
            }
        });
    }

    /// The failures among all; 0 if there were none.
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn failure_ratio(&self) -> f64 {
        let (successes, failures) = self.with_current(|minutes| {
            minutes
                .iter()
                .fold((0, 0), |(successes, failures), (_, more, failed)| (successes + more, failures + failed))
        });
        if failures == 0 { 0.0 } else { failures as f64 / (successes + failures) as f64 }
    }
}

/// The gauge, which falls without further sign-ins.
#[derive(Debug)]
struct FailureRatio(Arc<Window>);

impl Collector for FailureRatio {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new(self.0.failure_ratio());
        let help = "Failed sign-ins among those of the last five minutes, from 0 to 1";
        let metric = encoder.encode_descriptor("drystone_sign_in_failure_ratio", help, None, gauge.metric_type())?;
        gauge.encode(metric)
    }
}

/// Counts tokens issued without property claims, because the property service did not respond in time.
#[derive(Debug, Clone, Default)]
pub struct PropertyClaimMetrics {
    pub(crate) sign_ins_without: Counter,
    pub(crate) refreshes_without: Counter,
}

impl PropertyClaimMetrics {
    /// Registers the metrics.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            registry.register(
                "drystone_sign_ins_without_property_claims",
                "Sign-ins whose token has no property claims because the property service was unavailable",
                this.sign_ins_without.clone(),
            );
            registry.register(
                "drystone_refreshes_without_property_claims",
                "Refreshes whose token has no property claims because the property service was unavailable",
                this.refreshes_without.clone(),
            );
        });
        this
    }
}
