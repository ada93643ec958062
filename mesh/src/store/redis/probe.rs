//! Asks Redis every few seconds whether it is there, and reports what it says.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Redis;
use crate::{error::Chain, health::Component};

/// How often a Redis that is up is asked.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often one that is away is asked.
const RETRY: Duration = Duration::from_millis(200);

/// Probes until `stop`.
pub async fn probe(redis: Redis, component: Component, stop: CancellationToken) {
    // At the start it is being connected to, which takes a moment.
    tokio::select! {
        () = stop.cancelled() => return,
        () = redis.ready() => {}
        () = tokio::time::sleep(RETRY) => {}
    }
    loop {
        let pause = match redis.ping().await {
            Ok(()) => {
                component.up();
                INTERVAL
            }
            Err(failure) => {
                component.down(Chain(&failure).to_string());
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
