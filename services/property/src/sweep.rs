//! Forgets the request ids of creations that are too old to be repeated.

use std::time::Duration;

use drystone_mesh::{clock::Clock, error::Chain};
use drystone_store::request_id;
use tokio_util::sync::CancellationToken;

use crate::PropertyStore;

const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Sweeps the store periodically until `stop`.
pub(crate) async fn run(store: PropertyStore, clock: Clock, stop: CancellationToken) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        match store.forget_request_ids(clock.now() - request_id::LIFETIME).await {
            Ok(0) => {}
            Ok(forgotten) => tracing::debug!(forgotten, "old request ids forgotten"),
            Err(error) => tracing::warn!(cause = %Chain(&error), "old request ids could not be forgotten"),
        }
    }
}
