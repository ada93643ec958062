//! The health probe of a database.

use std::time::Duration;

use drystone_mesh::health::{Component, ProbeIntervals, probe as run_probe};
use tokio_util::sync::CancellationToken;

use super::Db;

const INTERVALS: ProbeIntervals = ProbeIntervals { up: Duration::from_secs(5), down: Duration::from_millis(500) };

/// Pings the database periodically and reports its health, until `stop`.
pub async fn probe(db: Db, component: Component, stop: CancellationToken) {
    run_probe(|| db.ping(), component, INTERVALS, stop).await;
}
