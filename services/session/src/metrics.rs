//! The metrics of this service.

use drystone_mesh::telemetry::Metrics;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

/// One label with a value from a closed list.
type LabelPair = [(&'static str, &'static str); 1];

/// The metrics of this service. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionMetrics {
    created: Counter,
    ended: Family<LabelPair, Counter>,
    rotations: Family<LabelPair, Counter>,
    /// The number of active sessions.
    pub(crate) active: Gauge,
    /// The number of connected watchers.
    pub(crate) watchers: Gauge,
    /// The number of lagging watchers, which no call waits for.
    pub(crate) watchers_lagging: Gauge,
    /// The number of watchers evicted because they did not acknowledge in time.
    pub(crate) watchers_evicted: Counter,
}

impl SessionMetrics {
    /// Registers the metrics of this service in `metrics`.
    pub(crate) fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            registry.register("drystone_sessions_created", "Sessions created", counts.created.clone());
            registry.register("drystone_sessions_ended", "Sessions ended, by cause", counts.ended.clone());
            registry.register(
                "drystone_session_rotations",
                "Refresh tokens presented, by outcome",
                counts.rotations.clone(),
            );
            registry.register("drystone_sessions_active", "Active sessions", counts.active.clone());
            registry.register("drystone_revocation_watchers", "Connected watchers", counts.watchers.clone());
            registry.register(
                "drystone_revocation_watchers_lagging",
                "Watchers that are lagging, which revoking calls do not wait for",
                counts.watchers_lagging.clone(),
            );
            registry.register(
                "drystone_revocation_watchers_evicted",
                "Watchers evicted because they did not acknowledge in time",
                counts.watchers_evicted.clone(),
            );
        });
        counts
    }

    pub(crate) fn session_created(&self) {
        self.created.inc();
    }

    pub(crate) fn sessions_ended(&self, cause: &'static str, count: u32) {
        self.ended.get_or_create(&[("cause", cause)]).inc_by(count.into());
    }

    pub(crate) fn rotated(&self, outcome: &'static str) {
        self.rotations.get_or_create(&[("outcome", outcome)]).inc();
    }
}
