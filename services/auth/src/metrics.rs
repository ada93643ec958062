//! Metrics of this service. Mesh records those of its calls.

use std::time::Duration;

use drystone_mesh::telemetry::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

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
