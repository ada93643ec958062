//! The metrics of the endpoints of a service, as called by one workload.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::breaker::BreakerState;
use crate::telemetry::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BreakerLabels {
    caller: &'static str,
    service: String,
    group: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    caller: &'static str,
    service: String,
    group: String,
    outcome: &'static str,
}

/// The families, which all clients of a process share. Groups are those of the configuration; addresses are no labels, since
/// their number has no bound over time: health reports have them.
#[derive(Debug, Clone, Default)]
struct Families {
    breakers: Family<BreakerLabels, Gauge>,
    probes: Family<ProbeLabels, Counter>,
}

impl Families {
    fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        let help = "Instances of a service, by the state of their circuit breaker";
        registry.register("drystone_client_breakers", help, this.breakers.clone());
        let help = "Health checks of instances of a service";
        registry.register("drystone_client_probes", help, this.probes.clone());
        this
    }
}

/// The metrics of the endpoints of one service.
#[derive(Debug)]
pub(super) struct EndpointMetrics {
    families: Families,
    caller: &'static str,
    service: Arc<str>,
}

impl EndpointMetrics {
    pub(super) fn new(metrics: &Metrics, caller: &'static str, service: &str) -> Self {
        Self { families: metrics.shared(Families::register), caller, service: service.into() }
    }

    /// Sets how many endpoints of a group have a breaker in this state.
    pub(super) fn set_breakers(&self, group: &str, state: BreakerState, count: usize) {
        let (caller, service, group) = (self.caller, self.service.as_ref().to_owned(), group.to_owned());
        let labels = BreakerLabels { caller, service, group, state: state.name() };
        self.families.breakers.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a health check.
    pub(super) fn probed(&self, group: &str, outcome: &'static str) {
        let (caller, service, group) = (self.caller, self.service.as_ref().to_owned(), group.to_owned());
        self.families.probes.get_or_create(&ProbeLabels { caller, service, group, outcome }).inc();
    }
}
