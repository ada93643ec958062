//! Follows what the session service revokes.

use std::{sync::Arc, time::Duration};

use drystone::session::v1::{WatchRevocationsRequest, session_service_client::SessionServiceClient};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Transport;
use crate::{
    backoff::Backoff,
    call::Call,
    client::{Channel, Instance, Instances},
    token::RevocationView,
};

/// A stream without a message for so long is given up; the server sends a heartbeat every 2 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The bounds of the backoff between two streams. No longer than it takes until an instance that has recovered is called: a
/// revoking call there waits for the watchers that are connected.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_millis(250);

/// Applies revocations, and acknowledges each only then: a revoking call that waits for the acknowledgement knows
/// that its tokens are refused here.
///
/// Every instance of the session service is watched. Each knows of all revocations, and the view is up to date as long
/// as one of them is connected; but an instance that revokes waits for its own watchers alone.
pub(crate) async fn watch_revocations(instances: Arc<Instances>, view: RevocationView, stop: CancellationToken) {
    let mut current = instances.watch();
    let mut followed: Vec<Arc<Instance>> = Vec::new();
    // Ends its tasks when it is dropped.
    let mut followers = JoinSet::new();
    loop {
        let all = current.borrow_and_update().clone();
        for instance in all.iter().filter(|instance| !followed.iter().any(|other| Arc::ptr_eq(other, instance))) {
            let client = SessionServiceClient::new(Channel::to(instances.service().clone(), instance.clone()));
            let (gone, view) = (instance.gone().clone(), view.clone());
            followers.spawn(async move { gone.run_until_cancelled(follow(client, view)).await });
        }
        followed = all.to_vec();
        match stop.run_until_cancelled(current.changed()).await {
            Some(Ok(())) => while followers.try_join_next().is_some() {},
            Some(Err(_)) | None => return,
        }
    }
}

/// Follows one instance. After a break it goes on from where it was.
async fn follow<T: Transport>(client: SessionServiceClient<T>, view: RevocationView) {
    let follower = Follower { client, view, cursor: 0, backoff: Backoff::new(MIN_BACKOFF, MAX_BACKOFF) };
    follower.follow(IDLE_TIMEOUT).await;
}

struct Follower<T> {
    client: SessionServiceClient<T>,
    view: RevocationView,
    /// Everything up to here has been applied.
    cursor: u64,
    backoff: Backoff,
}

impl<T: Transport> Follower<T> {
    async fn follow(mut self, idle_timeout: Duration) {
        loop {
            let error = match self.listen(idle_timeout).await {
                Ok(()) => Status::unavailable("the stream has ended"),
                Err(error) => error,
            };
            let delay = self.backoff.failed();
            // As long as another instance is connected, nothing is missed.
            if self.backoff.is_lasting() && !self.view.is_fresh() {
                tracing::warn!(code = ?error.code(), error = error.message(), cursor = self.cursor, "revocations are not received");
            }
            sleep(delay).await;
        }
    }

    /// Follows one stream to its end.
    async fn listen(&mut self, idle_timeout: Duration) -> Result<(), Status> {
        // Acknowledgements are cumulative, so a slow server only misses ones that a later one covers.
        let (acknowledge, acknowledged) = watch::channel(WatchRevocationsRequest { cursor: self.cursor });
        let request = Call::background(None).request(WatchStream::new(acknowledged));
        let answer = in_time(idle_timeout, self.client.watch_revocations(request)).await?;
        let mut answers = answer.into_inner();
        while let Some(answer) = in_time(idle_timeout, answers.message()).await? {
            self.view.apply(&answer.revocations);
            if self.backoff.succeeded() {
                tracing::info!(cursor = answer.cursor, "revocations are received again");
            }
            if answer.cursor < self.cursor {
                // The server has lost its history and counts anew: hear all of it.
                self.cursor = 0;
                return Err(Status::aborted("the server's cursor went backwards"));
            }
            self.cursor = answer.cursor;
            acknowledge.send_replace(WatchRevocationsRequest { cursor: self.cursor });
        }
        Ok(())
    }
}

async fn in_time<R>(limit: Duration, work: impl Future<Output = Result<R, Status>>) -> Result<R, Status> {
    timeout(limit, work).await.map_err(|_| Status::deadline_exceeded("no message within the idle timeout"))?
}

#[cfg(test)]
mod tests;
