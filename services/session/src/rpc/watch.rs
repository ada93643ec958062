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
    feed::{Batch, Dismissed, Feed},
    hub::{Acknowledger, MAX_WATCHERS, MAX_WATCHERS_PER_WORKLOAD, TooManyWatchers},
};

/// What a watcher is answered.
pub(crate) type Answers = Pin<Box<dyn Stream<Item = Result<WatchRevocationsResponse, Status>> + Send>>;

/// How long a watcher has to say where to go on.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// When it is worth trying again where there are too many watchers.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Connects a watcher of the workload `caller` that says first where to go on.
pub(super) async fn watch(
    service: &Service,
    caller: Option<SpiffeId>,
    mut words: Streaming<WatchRevocationsRequest>,
) -> Result<Answers, Status> {
    // Before anything is waited for, so that those who say nothing are counted as well.
    let place = service.feeds.hub.reserve(caller).map_err(too_many)?;
    let first = timeout(FIRST_WORD, words.message()).await.map_err(|_| silent())??.ok_or_else(silent)?;
    let feed = Feed::open(service.feeds.clone(), place, first.cursor);
    service.tasks.spawn(acknowledge(words, feed.acknowledger()));

    tracing::debug!(cursor = first.cursor, "watcher of revocations connected");
    Ok(Box::pin(stream::unfold(Some(feed), |feed| async {
        let mut feed = feed?;
        match feed.next().await? {
            Ok(batch) => Some((Ok(batch.into()), Some(feed))),
            Err(dismissed) => Some((Err(broken_off(dismissed)), None)),
        }
    })))
}

/// Hands on what the watcher acknowledges, until either side leaves.
async fn acknowledge(mut words: Streaming<WatchRevocationsRequest>, acknowledger: Acknowledger) {
    loop {
        select! {
            word = words.message() => match word {
                Ok(Some(word)) => acknowledger.acknowledge(word.cursor),
                // A watcher that can acknowledge nothing any more is not to be waited for.
                Ok(None) | Err(_) => return acknowledger.leave(),
            },
            () = acknowledger.left() => return,
        }
    }
}

fn silent() -> MeshError {
    MeshError::invalid_field("cursor", "the first message has to say where to go on; send 0 to start")
}

fn too_many(why: TooManyWatchers) -> MeshError {
    let message = match why {
        TooManyWatchers::OfWorkload => {
            format!(
                "this workload has {MAX_WATCHERS_PER_WORKLOAD} watchers of revocations already; watch once in a process"
            )
        }
        TooManyWatchers::InTotal => {
            format!("there are {MAX_WATCHERS} watchers of revocations already; try again shortly")
        }
    };
    tracing::warn!(?why, "watcher of revocations refused");
    MeshError::new(Reason::Overloaded, message).retry_after(RETRY_AFTER)
}

fn broken_off(_: Dismissed) -> Status {
    let message = "what was sent was not acknowledged in time; connect again with the last cursor";
    MeshError::new(Reason::Unavailable, message).into()
}

impl From<Batch> for WatchRevocationsResponse {
    fn from(batch: Batch) -> Self {
        Self { revocations: batch.revocations.into_iter().map(Into::into).collect(), cursor: batch.cursor }
    }
}
