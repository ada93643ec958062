//! What this service counts.

use drystone_mesh::telemetry::Metrics;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

/// One label with a value from a closed list.
type Label = [(&'static str, &'static str); 1];

/// What this service counts. Clones are the same counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionMetrics {
    created: Counter,
    ended: Family<Label, Counter>,
    rotations: Family<Label, Counter>,
    /// How many sessions are live.
    pub(crate) live: Gauge,
    /// How many watchers are connected.
    pub(crate) watchers: Gauge,
    /// How many watchers have not caught up, and are not waited for.
    pub(crate) watchers_lagging: Gauge,
    /// How many watchers were dropped because they did not acknowledge.
    pub(crate) watchers_dropped: Counter,
}

impl SessionMetrics {
    /// Counts that are shown among these metrics.
    pub(crate) fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            registry.register("drystone_sessions_created", "Sessions that were made", counts.created.clone());
            registry.register("drystone_sessions_ended", "Sessions that were ended, by cause", counts.ended.clone());
            registry.register(
                "drystone_session_rotations",
                "Refresh tokens that were presented, by what became of them",
                counts.rotations.clone(),
            );
            registry.register("drystone_sessions_live", "Sessions that are live", counts.live.clone());
            registry.register("drystone_revocation_watchers", "Watchers that are connected", counts.watchers.clone());
            registry.register(
                "drystone_revocation_watchers_lagging",
                "Watchers that acknowledge too slowly to be waited for",
                counts.watchers_lagging.clone(),
            );
            registry.register(
                "drystone_revocation_watchers_dropped",
                "Watchers that were dropped because they did not acknowledge in time",
                counts.watchers_dropped.clone(),
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
