//! Deletes expired sessions and revocations, and counts the active sessions.

use std::{sync::Arc, time::Duration};

use drystone_mesh::clock::Clock;
use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::SessionMetrics,
    session::MAX_CLOCK_JUMP,
    store::{SessionStore, StoreError},
};

const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Sweeps the store periodically until `stop`.
pub(crate) async fn run(store: Arc<dyn SessionStore>, clock: Clock, metrics: SessionMetrics, stop: CancellationToken) {
    let mut interval = interval(SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        if let Err(error) = sweep(store.as_ref(), &clock, &metrics).await {
            tracing::warn!(%error, "expired sessions could not be swept");
        }
    }
}

pub(crate) async fn sweep(store: &dyn SessionStore, clock: &Clock, metrics: &SessionMetrics) -> Result<(), StoreError> {
    let now = clock.now();
    let swept = store.sweep(now, now - MAX_CLOCK_JUMP).await?;
    if swept.sessions > 0 {
        tracing::debug!(
            sessions = swept.sessions,
            revocations = swept.revocations,
            "expired sessions and revocations deleted"
        );
        metrics.sessions_ended("expired", u32::try_from(swept.sessions).unwrap_or(u32::MAX));
    }
    metrics.active.set(i64::try_from(store.count_active(now).await?).unwrap_or(i64::MAX));
    Ok(())
}
