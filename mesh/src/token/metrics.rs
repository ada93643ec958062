//! Metrics of token verification.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::telemetry::{Metrics, histogram::DurationHistogram};

/// Upper bounds of the buckets of verification times, in microseconds: a signature takes 20 to 200.
const BOUNDS: [u64; 9] = [10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    service: &'static str,
    outcome: &'static str,
}

/// The metrics of all services of a process.
#[derive(Clone)]
struct Families {
    cache: Family<OutcomeLabels, Counter>,
    keys: Family<OutcomeLabels, Counter>,
    verifications: Family<ServiceLabels, DurationHistogram, fn() -> DurationHistogram>,
    withdrawn: Family<ServiceLabels, Gauge>,
}

/// The metrics of one verifier. Counting allocates nothing. Clones share their counts.
#[derive(Debug, Clone)]
pub struct TokenMetrics {
    pub(super) cache_hits: Counter,
    pub(super) cache_misses: Counter,
    pub(super) keys_found: Counter,
    pub(super) keys_unknown: Counter,
    verifications: DurationHistogram,
    withdrawn: Gauge,
}

impl TokenMetrics {
    /// The metrics of this service.
    #[must_use]
    pub fn new(metrics: &Metrics, service: &'static str) -> Self {
        let families = metrics.shared(|registry| {
            let families = Families {
                cache: Family::default(),
                keys: Family::default(),
                verifications: Family::new_with_constructor(new_histogram),
                withdrawn: Family::default(),
            };
            registry.register(
                "drystone_token_cache_lookups",
                "Lookups of access tokens among those that were verified before, by outcome",
                families.cache.clone(),
            );
            registry.register(
                "drystone_token_key_lookups",
                "Lookups of the key of an access token in the key set, by outcome",
                families.keys.clone(),
            );
            registry.register(
                "drystone_token_verification_duration_seconds",
                "Time to verify an access token that was not verified before",
                families.verifications.clone(),
            );
            registry.register(
                "drystone_token_withdrawn_keys",
                "Signing keys that were withdrawn, whose tokens are refused",
                families.withdrawn.clone(),
            );
            families
        });
        let counter = |family: &Family<OutcomeLabels, Counter>, outcome| {
            family.get_or_create_owned(&OutcomeLabels { service, outcome })
        };
        Self {
            cache_hits: counter(&families.cache, "hit"),
            cache_misses: counter(&families.cache, "miss"),
            keys_found: counter(&families.keys, "found"),
            keys_unknown: counter(&families.keys, "unknown"),
            verifications: families.verifications.get_or_create_owned(&ServiceLabels { service }),
            withdrawn: families.withdrawn.get_or_create_owned(&ServiceLabels { service }),
        }
    }

    pub(super) fn observe(&self, verification: Duration) {
        self.verifications.observe(verification);
    }

    /// Sets how many withdrawn keys are known.
    pub(crate) fn set_withdrawn(&self, count: usize) {
        self.withdrawn.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Metrics that nobody reads.
impl Default for TokenMetrics {
    fn default() -> Self {
        Self {
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            keys_found: Counter::default(),
            keys_unknown: Counter::default(),
            verifications: new_histogram(),
            withdrawn: Gauge::default(),
        }
    }
}

fn new_histogram() -> DurationHistogram {
    DurationHistogram::with_bounds(&BOUNDS)
}
