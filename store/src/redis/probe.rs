//! The health probe of Redis.

use std::time::Duration;

use drystone_mesh::health::{Component, ProbeIntervals, probe as run_probe};
use tokio_util::sync::CancellationToken;

use super::Redis;

const INTERVALS: ProbeIntervals = ProbeIntervals { up: Duration::from_secs(2), down: Duration::from_millis(200) };

/// Pings Redis periodically and reports its health, until `stop`.
pub async fn probe(redis: Redis, component: Component, stop: CancellationToken) {
    // At startup, waits for the first connection for a short time, so that a probe does not fail because of it.
    tokio::select! {
        () = stop.cancelled() => return,
        () = redis.ready() => {}
        () = tokio::time::sleep(INTERVALS.down) => {}
    }
    run_probe(|| redis.ping(), component, INTERVALS, stop).await;
}
