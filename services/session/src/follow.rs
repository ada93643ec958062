//! Follows what other instances of this service revoke, for the watchers of this one.

use std::{sync::Arc, time::Duration};

use drystone_mesh::{backoff::Backoff, error::Chain};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{hub::Hub, store::SessionStore};

/// The bounds of the backoff after failures.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Announces what comes into the store until `stop`. What is missed while the store is away is found by the first look
/// at it afterwards.
pub(crate) async fn run(store: Arc<dyn SessionStore>, hub: Hub, stop: CancellationToken) {
    stop.run_until_cancelled(follow(store.as_ref(), &hub)).await;
}

async fn follow(store: &dyn SessionStore, hub: &Hub) {
    let (mut newest, mut backoff) = (0, Backoff::new(MIN_BACKOFF, MAX_BACKOFF));
    loop {
        match store.news(newest).await {
            Ok(number) => {
                hub.announce(number);
                newest = number;
                backoff.succeeded();
            }
            Err(error) => {
                tracing::debug!(cause = %Chain(&error), "revocations of other instances are not received");
                sleep(backoff.failed()).await;
            }
        }
    }
}
