//! `SessionService.WatchRevocations`: the feed of one watcher, and its acknowledgements.

use std::{pin::Pin, time::Duration};

use drystone::session::v1::{WatchRevocationsRequest, WatchRevocationsResponse};
use drystone_mesh::error::{Error as MeshError, Reason};
use futures_util::{Stream, stream};
use tokio::{select, time::timeout};
use tonic::{Status, Streaming};

use crate::{
    Service,
    feed::{Batch, Dismissed, Feed},
    hub::Acknowledger,
};

/// What a watcher is answered.
pub(crate) type Answers = Pin<Box<dyn Stream<Item = Result<WatchRevocationsResponse, Status>> + Send>>;

/// How long a watcher has to say where to go on.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// Connects a watcher that says first where to go on.
pub(super) async fn watch(service: &Service, mut words: Streaming<WatchRevocationsRequest>) -> Result<Answers, Status> {
    let first = timeout(FIRST_WORD, words.message()).await.map_err(|_| silent())??.ok_or_else(silent)?;
    let feed = Feed::open(service.feeds.clone(), first.cursor);
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

fn broken_off(_: Dismissed) -> Status {
    let message = "what was sent was not acknowledged in time; connect again with the last cursor";
    MeshError::new(Reason::Unavailable, message).into()
}

impl From<Batch> for WatchRevocationsResponse {
    fn from(batch: Batch) -> Self {
        Self { revocations: batch.revocations.into_iter().map(Into::into).collect(), cursor: batch.cursor }
    }
}
