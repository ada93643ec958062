//! Follows the revocations of the session service.

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
    client::{Channel, Endpoint, Endpoints},
    token::RevocationView,
};

/// A stream without a message for this long is closed; the server sends a heartbeat every 2 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The bounds of the backoff between streams. At most the time until a recovered endpoint is called again: a revoking call
/// there waits only for the connected watchers.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_millis(250);

/// Applies revocations, and acknowledges each afterwards: when a revoking call has the acknowledgement, its tokens are
/// rejected here.
///
/// Every endpoint of the session service is watched. Each streams all revocations, so the view is up to date as long as
/// one is connected; but an endpoint that revokes waits only for its own watchers.
pub(crate) async fn watch_revocations(endpoints: Arc<Endpoints>, view: RevocationView, stop: CancellationToken) {
    let mut current = endpoints.watch();
    let mut followed: Vec<Arc<Endpoint>> = Vec::new();
    // Aborts its tasks on drop.
    let mut followers = JoinSet::new();
    loop {
        let all = current.borrow_and_update().clone();
        for endpoint in all.iter().filter(|endpoint| !followed.iter().any(|other| Arc::ptr_eq(other, endpoint))) {
            let client = SessionServiceClient::new(Channel::to(endpoints.service().clone(), endpoint.clone()));
            let (removed, view) = (endpoint.removed().clone(), view.clone());
            followers.spawn(async move { removed.run_until_cancelled(follow(client, view)).await });
        }
        followed = all.to_vec();
        match stop.run_until_cancelled(current.changed()).await {
            Some(Ok(())) => while followers.try_join_next().is_some() {},
            Some(Err(_)) | None => return,
        }
    }
}

/// Follows one endpoint. After a disconnect it resumes at its cursor.
async fn follow<T: Transport>(client: SessionServiceClient<T>, view: RevocationView) {
    let follower = Follower { client, view, cursor: 0, backoff: Backoff::new(MIN_BACKOFF, MAX_BACKOFF) };
    follower.follow(IDLE_TIMEOUT).await;
}

struct Follower<T> {
    client: SessionServiceClient<T>,
    view: RevocationView,
    /// Everything up to this cursor has been applied.
    cursor: u64,
    backoff: Backoff,
}

impl<T: Transport> Follower<T> {
    async fn follow(mut self, idle_timeout: Duration) {
        loop {
            let error = match self.follow_stream(idle_timeout).await {
                Ok(()) => Status::unavailable("the stream has ended"),
                Err(error) => error,
            };
            let delay = self.backoff.failed();
            // While another endpoint is connected, no revocation is missed.
            if self.backoff.is_lasting() && !self.view.is_fresh() {
                tracing::warn!(code = ?error.code(), error = error.message(), cursor = self.cursor, "revocations are not received");
            }
            sleep(delay).await;
        }
    }

    /// Follows one stream until it ends.
    async fn follow_stream(&mut self, idle_timeout: Duration) -> Result<(), Status> {
        // Acknowledgements are cumulative, so a slow server only misses those that a later one includes.
        let (acknowledge, acknowledged) = watch::channel(WatchRevocationsRequest { cursor: self.cursor });
        let request = Call::background(None).request(WatchStream::new(acknowledged));
        let response = with_timeout(idle_timeout, self.client.watch_revocations(request)).await?;
        let mut updates = response.into_inner();
        while let Some(update) = with_timeout(idle_timeout, updates.message()).await? {
            self.view.apply(&update.revocations);
            if self.backoff.succeeded() {
                tracing::info!(cursor = update.cursor, "revocations are received again");
            }
            if update.cursor < self.cursor {
                // The server has lost its history and restarted its cursor: read everything again.
                self.cursor = 0;
                return Err(Status::aborted("the server's cursor went backwards"));
            }
            self.cursor = update.cursor;
            acknowledge.send_replace(WatchRevocationsRequest { cursor: self.cursor });
        }
        Ok(())
    }
}

async fn with_timeout<R>(limit: Duration, work: impl Future<Output = Result<R, Status>>) -> Result<R, Status> {
    timeout(limit, work).await.map_err(|_| Status::deadline_exceeded("no message within the idle timeout"))?
}

#[cfg(test)]
mod tests;
