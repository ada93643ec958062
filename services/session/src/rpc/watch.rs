//! `SessionService.WatchRevocations`: the feed of one watcher, and its acknowledgements.

use std::{pin::Pin, time::Duration};

use drystone::session::v1::{WatchRevocationsRequest, WatchRevocationsResponse};
use drystone_mesh::{
    error::{Error as MeshError, Reason},
    identity::SpiffeId,
};
use futures_util::{Stream, stream};
use tokio::{select, time::timeout};
use tonic::{Status, Streaming};

use crate::{
    Service,
    feed::{Batch, Evicted, Feed},
    hub::{Acknowledger, MAX_WATCHERS, MAX_WATCHERS_PER_WORKLOAD, TooManyWatchers},
};

/// The response stream to a watcher.
pub(crate) type ResponseStream = Pin<Box<dyn Stream<Item = Result<WatchRevocationsResponse, Status>> + Send>>;

/// How long to wait for a watcher's first message, which contains its cursor.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// When a watcher may retry after the limit of watchers was reached.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Connects a watcher of the workload `caller`. Its first message contains the cursor to continue from.
pub(super) async fn watch(
    service: &Service,
    caller: Option<SpiffeId>,
    mut requests: Streaming<WatchRevocationsRequest>,
) -> Result<ResponseStream, Status> {
    // Reserved before waiting, so that clients that send nothing count against the limit as well.
    let slot = service.feeds.hub.reserve(caller).map_err(too_many_watchers)?;
    let first = timeout(FIRST_MESSAGE_TIMEOUT, requests.message())
        .await
        .map_err(|_| missing_cursor())??
        .ok_or_else(missing_cursor)?;
    let feed = Feed::open(service.feeds.clone(), slot, first.cursor);
    service.tasks.spawn(receive_acknowledgements(requests, feed.acknowledger()));

    tracing::debug!(cursor = first.cursor, "revocation watcher connected");
    Ok(Box::pin(stream::unfold(Some(feed), |feed| async {
        let mut feed = feed?;
        match feed.next().await? {
            Ok(batch) => Some((Ok(batch.into()), Some(feed))),
            Err(Evicted) => Some((Err(not_acknowledged()), None)),
        }
    })))
}

/// Forwards the watcher's acknowledgements until either side closes the stream.
async fn receive_acknowledgements(mut requests: Streaming<WatchRevocationsRequest>, acknowledger: Acknowledger) {
    loop {
        select! {
            request = requests.message() => match request {
                Ok(Some(request)) => acknowledger.acknowledge(request.cursor),
                // No call should wait for a watcher that can acknowledge nothing more.
                Ok(None) | Err(_) => return acknowledger.remove(),
            },
            () = acknowledger.removed() => return,
        }
    }
}

fn missing_cursor() -> MeshError {
    MeshError::invalid_field("cursor", "the first message must contain the cursor to continue from; send 0 to start")
}

fn too_many_watchers(limit: TooManyWatchers) -> MeshError {
    let message = match limit {
        TooManyWatchers::OfWorkload => {
            format!(
                "this workload already has {MAX_WATCHERS_PER_WORKLOAD} revocation watchers; open one watch per process"
            )
        }
        TooManyWatchers::InTotal => {
            format!("there are already {MAX_WATCHERS} revocation watchers; try again shortly")
        }
    };
    tracing::warn!(?limit, "revocation watcher refused");
    MeshError::new(Reason::Overloaded, message).retry_after(RETRY_AFTER)
}

fn not_acknowledged() -> Status {
    let message = "revocations were not acknowledged in time; reconnect with the last cursor";
    MeshError::new(Reason::Unavailable, message).into()
}

impl From<Batch> for WatchRevocationsResponse {
    fn from(batch: Batch) -> Self {
        Self { revocations: batch.revocations.into_iter().map(Into::into).collect(), cursor: batch.cursor }
    }
}
