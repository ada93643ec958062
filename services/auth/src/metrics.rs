//! What this service counts, beside the calls that mesh counts for everybody.

use std::time::Duration;

use drystone_mesh::telemetry::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

/// Buckets for waits and hashes, in seconds: a hash takes 10 to 100 ms, a wait up to a deadline.
const BUCKETS: [f64; 11] = [0.001, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    why: &'static str,
}

/// Of the hashing pool. Clones count together.
#[derive(Debug, Clone)]
pub struct HashingMetrics {
    depth: Gauge,
    waits: Histogram,
    hashes: Histogram,
    queue_full: Counter,
    deadline_passed: Counter,
    caller_gone: Counter,
}

impl HashingMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let drops = Family::<DropLabels, Counter>::default();
        let drop_for = |why| drops.get_or_create_owned(&DropLabels { why });
        let this = Self {
            depth: Gauge::default(),
            waits: Histogram::new(BUCKETS),
            hashes: Histogram::new(BUCKETS),
            queue_full: drop_for("queue_full"),
            deadline_passed: drop_for("deadline_passed"),
            caller_gone: drop_for("caller_gone"),
        };
        metrics.register(|registry| {
            registry.register("drystone_hashing_queue_jobs", "Passwords that wait to be hashed", this.depth.clone());
            registry.register("drystone_hashing_wait_seconds", "Time in the hashing queue", this.waits.clone());
            registry.register("drystone_hashing_seconds", "Time to hash a password", this.hashes.clone());
            registry.register("drystone_hashing_dropped", "Passwords that were not hashed, by why", drops);
        });
        this
    }

    pub(crate) fn queued(&self, depth: usize) {
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    pub(crate) fn waited(&self, time: Duration) {
        self.waits.observe(time.as_secs_f64());
    }

    pub(crate) fn hashed(&self, time: Duration) {
        self.hashes.observe(time.as_secs_f64());
    }

    pub(crate) fn queue_full(&self) {
        self.queue_full.inc();
    }

    pub(crate) fn deadline_passed(&self) {
        self.deadline_passed.inc();
    }

    pub(crate) fn caller_gone(&self) {
        self.caller_gone.inc();
    }
}

/// Of the tokens that were made without property claims, because the property service did not answer in time.
#[derive(Debug, Clone, Default)]
pub struct PropertyClaimMetrics {
    pub(crate) sign_ins_without: Counter,
    pub(crate) refreshes_without: Counter,
}

impl PropertyClaimMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            registry.register(
                "drystone_sign_in_without_property_claims",
                "Sign-ins whose token has no property claims, since the property service was unavailable",
                this.sign_ins_without.clone(),
            );
            registry.register(
                "drystone_refresh_without_property_claims",
                "Refreshes whose token has no property claims, since the property service was unavailable",
                this.refreshes_without.clone(),
            );
        });
        this
    }
}
