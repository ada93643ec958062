//! What is done from time to time: old messages are removed, and the metrics of the queue updated.

use std::time::Duration;

use drystone_mesh::{clock::Clock, error::Chain};
use tokio_util::sync::CancellationToken;

use crate::{Error, metrics::DeliveryMetrics, store::NotificationStore};

const INTERVAL: Duration = Duration::from_secs(15);

/// The dependencies.
pub(crate) struct Housekeeping {
    pub(crate) store: NotificationStore,
    pub(crate) clock: Clock,
    pub(crate) metrics: DeliveryMetrics,
    /// How long messages and deliveries are kept.
    pub(crate) retention: Duration,
    /// How long messages in inboxes are kept.
    pub(crate) inbox_retention: Duration,
}

impl Housekeeping {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let rounds = async {
            loop {
                interval.tick().await;
                let secrets = self.store.remove_expired_secrets(self.clock.now()).await;
                for outcome in [self.update_metrics().await, secrets, self.remove_old().await] {
                    if let Err(error) = outcome {
                        tracing::warn!(cause = %Chain(&error), "housekeeping of messages failed");
                    }
                }
            }
        };
        stop.run_until_cancelled(rounds).await;
    }

    async fn update_metrics(&self) -> Result<(), Error> {
        self.metrics.set_backlog(self.store.backlog().await?, &self.clock);
        Ok(())
    }

    async fn remove_old(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let removed = self.store.remove_older(now - self.retention, now - self.inbox_retention).await?;
        if removed > 0 {
            tracing::debug!(removed, "old messages removed");
        }
        Ok(())
    }
}
