//! Forgets what has expired, and counts what is left.

use std::{sync::Arc, time::Duration};

use drystone_mesh::clock::Clock;
use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::SessionMetrics,
    store::{SessionStore, StoreError},
};

/// How often.
const PERIOD: Duration = Duration::from_secs(10);

/// Sweeps until `stop`.
pub(crate) async fn run(store: Arc<dyn SessionStore>, clock: Clock, metrics: SessionMetrics, stop: CancellationToken) {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            () = stop.cancelled() => return,
            _ = period.tick() => {}
        }
        if let Err(error) = sweep(store.as_ref(), &clock, &metrics).await {
            tracing::warn!(%error, "what has expired could not be swept");
        }
    }
}

async fn sweep(store: &dyn SessionStore, clock: &Clock, metrics: &SessionMetrics) -> Result<(), StoreError> {
    let now = clock.now();
    let swept = store.sweep(now).await?;
    if swept.sessions > 0 {
        tracing::debug!(sessions = swept.sessions, revocations = swept.revocations, "swept");
        metrics.sessions_ended("expired", u32::try_from(swept.sessions).unwrap_or(u32::MAX));
    }
    metrics.live.set(i64::try_from(store.count_live(now).await?).unwrap_or(i64::MAX));
    Ok(())
}
