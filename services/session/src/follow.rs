//! Announces revocations made by other instances of this service to the watchers of this one.

use std::{sync::Arc, time::Duration};

use drystone_mesh::{backoff::Backoff, error::Chain};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{hub::Hub, store::SessionStore};

/// The bounds of the backoff after failures.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Announces new revocations in the store until `stop`. Those added while the store was unavailable are announced by
/// the first query that succeeds.
pub(crate) async fn run(store: Arc<dyn SessionStore>, hub: Hub, stop: CancellationToken) {
    stop.run_until_cancelled(follow(store.as_ref(), &hub)).await;
}

async fn follow(store: &dyn SessionStore, hub: &Hub) {
    let (mut newest, mut backoff) = (0, Backoff::new(MIN_BACKOFF, MAX_BACKOFF));
    loop {
        match store.wait_for_revocation(newest).await {
            Ok(seq) => {
                hub.announce(seq);
                newest = seq;
                backoff.succeeded();
            }
            Err(error) => {
                tracing::debug!(cause = %Chain(&error), "revocations of other instances are not received");
                sleep(backoff.failed()).await;
            }
        }
    }
}
