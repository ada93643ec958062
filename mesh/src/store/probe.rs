//! Asks a database every few seconds whether it is there, and reports what it says.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Db;
use crate::health::Component;

/// How often a database that is up is asked.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often one that is away is asked.
const RETRY: Duration = Duration::from_millis(500);

/// Probes until `stop`.
pub async fn probe(db: Db, component: Component, stop: CancellationToken) {
    loop {
        let pause = match db.ping().await {
            Ok(()) => {
                component.up();
                INTERVAL
            }
            Err(error) => {
                component.down(error.to_string());
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
