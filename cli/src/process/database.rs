//! The database of one service, opened with retries.

use std::time::Duration;

use anyhow::Result;
use drystone_mesh::{
    backoff::Backoff,
    health::Kind,
    module::{Module, Shared},
};
use drystone_store::{Db, Location};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

/// The bounds of the backoff between attempts to open a database.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Opens a service's database, brings its schema up to date, and starts its health probe and the metrics of its size. Retries while the server does
/// not answer, so that the order of starting does not matter.
pub(super) async fn open(
    module: Module,
    location: Location,
    shared: &Shared,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Db> {
    let component = shared.health.component(format!("{} database", module.name()), Kind::Vital);
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    let db = loop {
        match Db::open(location.clone(), module.migrations()).await {
            Ok(db) => break db,
            Err(error) if error.is_temporary() => {
                warn!(%error, "waiting for a database");
                component.down(error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(backoff.failed()).await;
    };
    tasks.spawn(drystone_store::probe(db.clone(), component, stop.clone()));
    tasks.spawn(drystone_store::watch_size(db.clone(), module.name(), shared.metrics.clone(), stop.clone()));
    Ok(db)
}
