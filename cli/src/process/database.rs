//! The database of one service, from the first attempt to open it on.

use std::time::Duration;

use anyhow::Result;
use drystone_mesh::{
    backoff::Backoff,
    health::{Health, Kind},
    module::Module,
};
use drystone_store::{Db, Location};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

/// The bounds of the backoff between attempts to open a database.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Opens a service's database, brings its schema up to date, and watches over it. A server that does not answer yet is
/// waited for, so that it does not matter which of the two is started first.
pub(super) async fn open(
    module: Module,
    place: Location,
    health: &Health,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Db> {
    let component = health.component(format!("{} database", module.name()), Kind::Vital);
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    let db = loop {
        match Db::open(place.clone(), module.migrations()).await {
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
    Ok(db)
}
