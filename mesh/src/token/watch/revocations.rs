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

/// A server that says nothing for so long is taken for gone; it gives a sign of life every 2 s.
const SILENCE: Duration = Duration::from_secs(10);
/// The first and the longest wait after a failure. No longer than it takes until an instance that is back is called: who
/// revokes something there waits for those that listen.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// Takes in what is revoked, and acknowledges it only then: a revoking call that waits for the acknowledgement knows
/// that no token of it passes here any more.
///
/// Every instance of the session service is followed. Each knows of all revocations, and the view is up to date as long
/// as one of them is heard; but one that revokes waits for its own watchers alone.
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
    let follower = Follower { client, view, cursor: 0, backoff: Backoff::new(WAITS.0, WAITS.1) };
    follower.follow(SILENCE).await;
}

struct Follower<T> {
    client: SessionServiceClient<T>,
    view: RevocationView,
    /// Everything up to here has been applied.
    cursor: u64,
    backoff: Backoff,
}

impl<T: Transport> Follower<T> {
    async fn follow(mut self, silence: Duration) {
        loop {
            let error = match self.listen(silence).await {
                Ok(()) => Status::unavailable("the stream has ended"),
                Err(error) => error,
            };
            let delay = self.backoff.failed();
            // As long as another instance is heard, nothing is missed.
            if self.backoff.is_lasting() && !self.view.is_fresh() {
                tracing::warn!(code = ?error.code(), error = error.message(), cursor = self.cursor, "revocations are not heard of");
            }
            sleep(delay).await;
        }
    }

    /// Follows one stream to its end.
    async fn listen(&mut self, silence: Duration) -> Result<(), Status> {
        // Acknowledgements are cumulative, so a slow server only misses ones that a later one covers.
        let (acknowledge, acknowledged) = watch::channel(WatchRevocationsRequest { cursor: self.cursor });
        let request = Call::background(None).request(WatchStream::new(acknowledged));
        let answer = in_time(silence, self.client.watch_revocations(request)).await?;
        let mut answers = answer.into_inner();
        while let Some(answer) = in_time(silence, answers.message()).await? {
            self.view.apply(&answer.revocations);
            if self.backoff.succeeded() {
                tracing::info!(cursor = answer.cursor, "revocations are heard of again");
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
    timeout(limit, work).await.map_err(|_| Status::deadline_exceeded("nothing was heard in time"))?
}

#[cfg(test)]
mod tests;
