//! The metrics of deliveries.

use drystone_mesh::{
    clock::{Clock, Timestamp},
    telemetry::Metrics,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::{
    channel::Channel,
    store::{Backlog, Outcome},
};

/// Attempts by channel and outcome, and the queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeliveryMetrics {
    attempts: Family<AttemptLabels, Counter>,
    queued: Gauge,
    queue_age: Gauge,
    dead: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    channel: &'static str,
    outcome: &'static str,
}

impl DeliveryMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            registry.register(
                "drystone_notification_attempts",
                "Attempts to deliver messages, by channel and outcome; deferred ones were not made",
                this.attempts.clone(),
            );
            registry.register("drystone_notification_queued", "Deliveries that will be attempted", this.queued.clone());
            registry.register(
                "drystone_notification_queue_age_seconds",
                "Age of the oldest delivery that will be attempted",
                this.queue_age.clone(),
            );
            registry.register(
                "drystone_notification_dead_letters",
                "Deliveries that were given up and are kept",
                this.dead.clone(),
            );
        });
        this
    }

    pub(crate) fn record(&self, channel: Channel, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Failed { .. } => "failed",
            Outcome::Dead { .. } => "given_up",
            Outcome::Deferred { .. } => "deferred",
        };
        self.attempts.get_or_create(&AttemptLabels { channel: channel.name(), outcome }).inc();
    }

    /// A delivery was made with the acceptance of its message.
    pub(crate) fn record_immediate(&self, channel: Channel) {
        self.record(channel, &Outcome::Delivered);
    }

    pub(crate) fn set_backlog(&self, backlog: Backlog, clock: &Clock) {
        let age = |oldest: Timestamp| (clock.now() - oldest).num_seconds().max(0);
        self.queued.set(backlog.queued);
        self.queue_age.set(backlog.oldest.map_or(0, age));
        self.dead.set(backlog.dead);
    }
}
