//! What can be done with sessions: the store's transitions, and telling everybody.

use std::{future::Future, sync::Arc, time::Duration};

use drystone_mesh::{clock::Clock, page::Page};
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    Error,
    hub::Hub,
    metrics::SessionMetrics,
    rotation::Rotation,
    session::{Lifetimes, NewSession, Session},
    store::{Ended, SessionStore, StoreError},
};

/// All sessions. Clones are the same.
#[derive(Clone)]
pub(crate) struct Sessions {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) hub: Hub,
    pub(crate) rules: Lifetimes,
    /// How long a revoking call waits for the watchers.
    pub(crate) patience: Duration,
    pub(crate) clock: Clock,
    pub(crate) metrics: SessionMetrics,
    pub(crate) tasks: TaskTracker,
    /// The calls that revoke something and have not been answered.
    pub(crate) revoking: TaskTracker,
}

impl Sessions {
    pub(crate) async fn create(&self, new: NewSession) -> Result<Session, Error> {
        let session = self.rules.start(new, self.clock.now());
        self.store.insert(&session).await?;
        self.metrics.session_created();
        Ok(session)
    }

    /// Trades a refresh token in: answers the session whose counter the next one carries.
    pub(crate) async fn rotate(&self, id: Uuid, counter: u64) -> Result<Session, Error> {
        let (this, _answering) = (self.clone(), self.revoking.token());
        let rotation = self
            .to_its_end(async move {
                let rotation = this.store.rotate(id, counter, &this.rules, this.clock.now()).await?;
                if let Rotation::Reused { revocation, .. } = &rotation {
                    this.hub.announce(*revocation);
                }
                Ok(rotation)
            })
            .await?;
        self.metrics.rotated(outcome(&rotation));
        match rotation {
            Rotation::Advanced(session) | Rotation::Repeated(session) => Ok(session),
            Rotation::NeverIssued => Err(Error::NeverIssued),
            Rotation::Over => Err(Error::Ended),
            Rotation::Reused { session, revocation } => {
                let Session { id, user_id, counter: current, .. } = session;
                tracing::warn!(
                    target: "audit",
                    event = "refresh_token_reused",
                    session = %id,
                    user = %user_id,
                    counter,
                    current,
                    "session ended, a used refresh token came again"
                );
                self.metrics.sessions_ended("reuse", 1);
                self.hub.wait_for_acks(revocation, self.patience).await;
                Err(Error::Reused)
            }
        }
    }

    pub(crate) async fn list(&self, user_id: Uuid, page: &Page) -> Result<Vec<Session>, Error> {
        Ok(self.store.list(user_id, page, self.clock.now()).await?)
    }

    /// Ends one session of this user.
    pub(crate) async fn revoke(&self, user_id: Uuid, id: Uuid) -> Result<(), Error> {
        let (this, _answering) = (self.clone(), self.revoking.token());
        let ended = self
            .to_its_end(async move {
                let ended = this.store.end(user_id, id, &this.rules, this.clock.now()).await?;
                this.announced(ended).await
            })
            .await?;
        self.metrics.sessions_ended("revoked", ended.sessions);
        self.hub.wait_for_acks(ended.revocation, self.patience).await;
        if ended.sessions == 0 { Err(Error::NotFound) } else { Ok(()) }
    }

    /// Ends every session of this user but one. Answers how many.
    pub(crate) async fn revoke_all(&self, user_id: Uuid, keep: Option<Uuid>) -> Result<u32, Error> {
        let (this, _answering) = (self.clone(), self.revoking.token());
        let ended = self
            .to_its_end(async move {
                let ended = this.store.end_all(user_id, keep, &this.rules, this.clock.now()).await?;
                this.announced(ended).await
            })
            .await?;
        self.metrics.sessions_ended("revoked_all", ended.sessions);
        self.hub.wait_for_acks(ended.revocation, self.patience).await;
        Ok(ended.sessions)
    }

    /// Voids the access tokens that this user has now.
    pub(crate) async fn void_tokens(&self, user_id: Uuid) -> Result<(), Error> {
        let (this, _answering) = (self.clone(), self.revoking.token());
        let revocation = self
            .to_its_end(async move {
                let revocation = this.store.void_tokens(user_id, &this.rules, this.clock.now()).await?;
                this.hub.announce(revocation);
                Ok(revocation)
            })
            .await?;
        self.hub.wait_for_acks(revocation, self.patience).await;
        Ok(())
    }

    /// Tells the watchers what came of an ending. Where nothing was left to end, an earlier call may have ended it that
    /// could not be answered, at another instance even: whoever asks again is to rely on the answer all the same.
    async fn announced(&self, Ended { sessions, revocation }: Ended) -> Result<Announced, StoreError> {
        let revocation = match revocation {
            Some(revocation) => revocation,
            None => self.store.newest_revocation().await?,
        };
        self.hub.announce(revocation);
        Ok(Announced { sessions, revocation })
    }

    /// Does work that has to go on if the caller goes away: what has been revoked must be announced.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Error> {
        Ok(self.tasks.spawn(work.in_current_span()).await??)
    }
}

/// What an ending came to, and how far the watchers have to be to know of it.
struct Announced {
    sessions: u32,
    revocation: u64,
}

fn outcome(rotation: &Rotation) -> &'static str {
    match rotation {
        Rotation::Advanced(_) => "advanced",
        Rotation::Repeated(_) => "repeated",
        Rotation::Reused { .. } => "reused",
        Rotation::NeverIssued => "never_issued",
        Rotation::Over => "over",
    }
}

#[cfg(test)]
mod tests {
    use drystone_mesh::telemetry::Metrics;
    use drystone_store::Db;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{Config, Deps, MIGRATIONS, Service, SqlStore};

    async fn service(directory: &tempfile::TempDir, stop: &CancellationToken) -> Service {
        service_at(directory, stop, Clock::system()).await
    }

    async fn service_at(directory: &tempfile::TempDir, stop: &CancellationToken, clock: Clock) -> Service {
        let db = Db::open(&directory.path().join("session.db"), MIGRATIONS).await.unwrap();
        Service::new(Deps {
            config: Config {
                acknowledgement_timeout: drystone_mesh::config::ConfigDuration::seconds(20),
                ..Config::default()
            },
            store: Arc::new(SqlStore::new(db)),
            clock,
            metrics: Metrics::default(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        })
    }

    #[tokio::test]
    async fn a_watcher_is_not_waited_for_on_account_of_what_has_expired() {
        let (directory, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let clock = Clock::manual(Clock::system().now());
        let service = service_at(&directory, &stop, clock.clone()).await;
        service.sessions.void_tokens(Uuid::now_v7()).await.unwrap();
        clock.advance(Duration::from_hours(24 * 30));
        let place = service.feeds.hub.reserve(None).unwrap();
        let mut feed = crate::feed::Feed::open(service.feeds.clone(), place, 0);
        let batch = feed.next().await.unwrap().unwrap();
        assert_eq!((batch.revocations.len(), batch.cursor), (0, 1));
        stop.cancel();
    }

    #[tokio::test]
    async fn who_asks_again_for_what_another_instance_has_ended_can_rely_on_the_answer() {
        let (directory, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let Sessions { store, rules, clock, .. } = service(&directory, &stop).await.sessions;
        let sessions = service(&directory, &stop).await.sessions;
        let user_id = Uuid::now_v7();
        let new = NewSession { user_id, device: String::new(), address: String::new() };
        let session = rules.start(new, clock.now());
        store.insert(&session).await.unwrap();
        // The other instance ended it, and went before it could tell its own watchers or ours.
        let revocation = store.end(user_id, session.id, &rules, clock.now()).await.unwrap().revocation.unwrap();

        let mut watcher = sessions.hub.subscribe(sessions.hub.reserve(None).unwrap(), 0);
        let asking = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.revoke(user_id, session.id).await }
        });
        assert_eq!(watcher.next().await, crate::hub::Event::News);
        assert!(!asking.is_finished(), "the watcher has not acknowledged");
        watcher.acknowledger().acknowledge(revocation);
        assert!(matches!(asking.await.unwrap(), Err(Error::NotFound)));
        stop.cancel();
    }

    #[tokio::test]
    async fn watchers_are_kept_until_the_last_revoking_call_is_answered() {
        let (directory, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let service = service(&directory, &stop).await;
        let call = service.sessions.revoking.token();
        stop.cancel();
        let feeds = &service.feeds.stop;
        assert!(tokio::time::timeout(Duration::from_millis(20), feeds.cancelled()).await.is_err());
        drop(call);
        tokio::time::timeout(Duration::from_secs(20), feeds.cancelled()).await.unwrap();
    }
}
