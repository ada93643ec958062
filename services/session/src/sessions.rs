//! Operations on sessions: transitions of the store, and the announcement of revocations.

use std::{future::Future, sync::Arc, time::Duration};

use drystone_mesh::{
    clock::{Clock, Timestamp},
    page::{MAX_PAGE_SIZE, Page},
};
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    Error,
    hub::Hub,
    metrics::SessionMetrics,
    revocation::Holder,
    rotation::{LATE_REPLACEMENT, PresentedBy, Rotation},
    session::{Lifetimes, NewSession, Session},
    store::{EndedSessions, SessionStore, StoreError},
};

/// A session whose token was rotated, with the counter of the next one.
pub(crate) struct Rotated {
    pub(crate) session: Session,
    /// Whether two clients seem to share it.
    pub(crate) is_shared: bool,
}

/// Operations on sessions. Clones share their state.
#[derive(Clone)]
pub(crate) struct Sessions {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) hub: Hub,
    pub(crate) lifetimes: Lifetimes,
    /// How many sessions one user may have.
    pub(crate) max_per_user: u32,
    /// Whether to end a session whose refresh token two clients seem to share.
    pub(crate) end_shared: bool,
    /// How long a revoking call waits for acknowledgements.
    pub(crate) ack_timeout: Duration,
    pub(crate) clock: Clock,
    pub(crate) metrics: SessionMetrics,
    pub(crate) tasks: TaskTracker,
    /// The revoking calls in progress.
    pub(crate) revoking_calls: TaskTracker,
}

impl Sessions {
    /// Starts a session. A user who has as many as are allowed loses the one that has been unused for the longest time: a
    /// refusal would lock out an owner whose clients never sign out.
    pub(crate) async fn create(&self, new: NewSession) -> Result<Session, Error> {
        self.evict(new.user_id).await?;
        let session = self.lifetimes.start(new, self.clock.now());
        self.store.insert(&session).await?;
        self.metrics.session_created();
        Ok(session)
    }

    /// Ends sessions of a user until one more is allowed. Concurrent sign-ins may exceed the limit by one each; later
    /// ones make up for it.
    async fn evict(&self, user_id: Uuid) -> Result<(), Error> {
        if self.store.count_of_user(user_id, self.clock.now()).await? < u64::from(self.max_per_user) {
            return Ok(());
        }
        let mut page = Page { size: self.max_per_user, after: None };
        let mut sessions = self.store.list(user_id, &page, self.clock.now()).await?;
        // More than one too many if the limit was lowered.
        while sessions.len() > self.max_per_user as usize && page.after != sessions.last().map(|session| session.id) {
            page = Page { size: MAX_PAGE_SIZE, after: sessions.last().map(|session| session.id) };
            sessions.extend(self.store.list(user_id, &page, self.clock.now()).await?);
        }
        let excess = (sessions.len() + 1).saturating_sub(self.max_per_user as usize);
        sessions.sort_unstable_by_key(|session| session.last_seen_at);
        for session in &sessions[..excess] {
            let Session { id, last_seen_at, .. } = session;
            let ended = self.end(user_id, *id).await?;
            if ended.sessions == 0 {
                continue;
            }
            tracing::info!(
                target: "audit",
                event = "session_evicted",
                session = %id,
                user = %user_id,
                %last_seen_at,
                "session ended, the user has too many"
            );
            self.metrics.sessions_ended("evicted", ended.sessions);
        }
        Ok(())
    }

    /// Records that the user of a session has proved who they are again.
    pub(crate) async fn raise(&self, user_id: Uuid, id: Uuid, methods: &[String]) -> Result<Session, Error> {
        self.store.raise(user_id, id, methods, self.clock.now()).await?.ok_or(Error::Ended)
    }

    /// Rotates a refresh token.
    pub(crate) async fn rotate(&self, id: Uuid, counter: u64, by: PresentedBy) -> Result<Rotated, Error> {
        let (this, _call) = (self.clone(), self.revoking_calls.token());
        let (rotation, is_shared) = self
            .run_to_completion(async move {
                let now = this.clock.now();
                let rotation = this.store.rotate(id, counter, &by, &this.lifetimes, now).await?;
                match &rotation {
                    Rotation::Reused { revocation, .. } => this.hub.announce(*revocation),
                    Rotation::Repeated(session) if this.is_shared(session) => {
                        return Ok((this.end_shared(session, now).await?, true));
                    }
                    _ => {}
                }
                Ok((rotation, false))
            })
            .await?;
        self.metrics.rotated(outcome(&rotation));
        match rotation {
            Rotation::Advanced(session) | Rotation::Repeated(session) | Rotation::Replaced(session) => {
                Ok(Rotated { session, is_shared })
            }
            Rotation::RepeatedTooOften(session) => {
                let now = self.clock.now();
                let grace_ends = session.last_seen_at + self.lifetimes.rotation_grace;
                let until = if now <= grace_ends { grace_ends } else { session.last_seen_at + LATE_REPLACEMENT };
                let left = (until - now).to_std().unwrap_or_default();
                Err(Error::RepeatedTooOften(left.max(Duration::from_secs(1))))
            }
            Rotation::NeverIssued => Err(Error::NeverIssued),
            Rotation::Ended => Err(Error::Ended),
            Rotation::Reused { session, revocation } => {
                let Session { id, user_id, counter: current, .. } = session;
                tracing::warn!(
                    target: "audit",
                    event = "refresh_token_reused",
                    session = %id,
                    user = %user_id,
                    counter,
                    current,
                    "session ended, a refresh token was reused"
                );
                self.metrics.sessions_ended("reuse", 1);
                self.hub.wait_for_acks(revocation, self.ack_timeout).await;
                Err(Error::Reused)
            }
        }
    }

    /// Whether two clients may share the session, which is reported. Once for each rotation, however often it is repeated.
    fn is_shared(&self, session: &Session) -> bool {
        let Session { id, user_id, repeated_rotations, repeats, .. } = session;
        if !session.is_suspicious() || *repeats > 1 {
            return false;
        }
        tracing::warn!(
            target: "audit",
            event = "refresh_token_shared",
            session = %id,
            user = %user_id,
            repeated_rotations,
            ended = self.end_shared,
            "the refresh token was presented twice on consecutive rotations, two clients may share it"
        );
        self.metrics.rotated("shared");
        true
    }

    /// Ends a session that two clients may share, if configured.
    async fn end_shared(&self, session: &Session, now: Timestamp) -> Result<Rotation, StoreError> {
        if !self.end_shared {
            return Ok(Rotation::Repeated(session.clone()));
        }
        let ended = self.store.end(session.user_id, session.id, &self.lifetimes, now).await?;
        let AnnouncedEnd { revocation, .. } = self.announce(ended).await?;
        Ok(Rotation::Reused { session: session.clone(), revocation })
    }

    pub(crate) async fn list(&self, user_id: Uuid, page: &Page) -> Result<Vec<Session>, Error> {
        Ok(self.store.list(user_id, page, self.clock.now()).await?)
    }

    /// Ends one session of this user.
    pub(crate) async fn revoke(&self, user_id: Uuid, id: Uuid) -> Result<(), Error> {
        let _call = self.revoking_calls.token();
        let ended = self.end(user_id, id).await?;
        self.metrics.sessions_ended("revoked", ended.sessions);
        self.hub.wait_for_acks(ended.revocation, self.ack_timeout).await;
        if ended.sessions == 0 { Err(Error::NotFound) } else { Ok(()) }
    }

    /// Ends one session of this user, and announces the revocation.
    async fn end(&self, user_id: Uuid, id: Uuid) -> Result<AnnouncedEnd, Error> {
        let this = self.clone();
        self.run_to_completion(async move {
            let ended = this.store.end(user_id, id, &this.lifetimes, this.clock.now()).await?;
            this.announce(ended).await
        })
        .await
    }

    /// Ends every session of this user, except for `keep`. Returns how many.
    pub(crate) async fn revoke_all(&self, user_id: Uuid, keep: Option<Uuid>) -> Result<u32, Error> {
        let (this, _call) = (self.clone(), self.revoking_calls.token());
        let ended = self
            .run_to_completion(async move {
                let ended = this.store.end_all(user_id, keep, &this.lifetimes, this.clock.now()).await?;
                this.announce(ended).await
            })
            .await?;
        self.metrics.sessions_ended("revoked_all", ended.sessions);
        self.hub.wait_for_acks(ended.revocation, self.ack_timeout).await;
        Ok(ended.sessions)
    }

    /// Voids the access tokens issued so far to these users.
    pub(crate) async fn void_tokens(&self, of: impl IntoIterator<Item = Holder>) -> Result<(), Error> {
        let (this, _call) = (self.clone(), self.revoking_calls.token());
        let of: Vec<_> = of.into_iter().collect();
        let revocation = self
            .run_to_completion(async move {
                let newest = this.store.void_tokens(&of, &this.lifetimes, this.clock.now()).await?;
                this.hub.announce(newest);
                Ok(newest)
            })
            .await?;
        self.hub.wait_for_acks(revocation, self.ack_timeout).await;
        Ok(())
    }

    /// Voids the access tokens of a key.
    pub(crate) async fn void_key(&self, key_id: String) -> Result<(), Error> {
        let (this, _call) = (self.clone(), self.revoking_calls.token());
        let revocation = self
            .run_to_completion(async move {
                let newest = this.store.void_key(&key_id, this.clock.now()).await?;
                this.hub.announce(newest);
                Ok(newest)
            })
            .await?;
        self.hub.wait_for_acks(revocation, self.ack_timeout).await;
        Ok(())
    }

    /// Announces the revocation of ended sessions. If no session was left to end, an earlier call may have ended it and
    /// failed before its response, even at another instance: a retry must be able to rely on its response all the same,
    /// so it waits for the newest revocation.
    async fn announce(
        &self,
        EndedSessions { sessions, revocation }: EndedSessions,
    ) -> Result<AnnouncedEnd, StoreError> {
        let revocation = match revocation {
            Some(revocation) => revocation,
            None => self.store.newest_revocation().await?,
        };
        self.hub.announce(revocation);
        Ok(AnnouncedEnd { sessions, revocation })
    }

    /// Runs a task that continues if the caller disconnects: a revocation in the store must be announced.
    async fn run_to_completion<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Error> {
        Ok(self.tasks.spawn(task.in_current_span()).await??)
    }
}

/// How many sessions were ended, and the revocation that watchers must acknowledge.
struct AnnouncedEnd {
    sessions: u32,
    revocation: u64,
}

fn outcome(rotation: &Rotation) -> &'static str {
    match rotation {
        Rotation::Advanced(_) => "advanced",
        Rotation::Repeated(_) => "repeated",
        Rotation::Replaced(_) => "replaced",
        Rotation::RepeatedTooOften(_) => "repeated_too_often",
        Rotation::Reused { .. } => "reused",
        Rotation::NeverIssued => "never_issued",
        Rotation::Ended => "over",
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
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
    async fn no_call_waits_for_a_watcher_because_of_expired_revocations() {
        let (directory, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let clock = Clock::manual(Clock::system().now());
        let service = service_at(&directory, &stop, clock.clone()).await;
        service.sessions.void_tokens([Holder::User(Uuid::now_v7())]).await.unwrap();
        clock.advance(Duration::from_hours(24 * 30));
        let slot = service.feeds.hub.reserve(None).unwrap();
        let mut feed = crate::feed::Feed::open(service.feeds.clone(), slot, 0);
        let batch = feed.next().await.unwrap().unwrap();
        assert_eq!((batch.revocations.len(), batch.cursor), (0, 1));
        stop.cancel();
    }

    #[tokio::test]
    async fn a_clock_that_jumps_forward_and_back_makes_no_revocation_forgotten() {
        let (directory, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let clock = Clock::manual(Clock::system().now());
        let service = service_at(&directory, &stop, clock.clone()).await;
        let Sessions { store, metrics, .. } = &service.sessions;
        let watch = async || {
            let slot = service.feeds.hub.reserve(None).unwrap();
            crate::feed::Feed::open(service.feeds.clone(), slot, 0).next().await.unwrap().unwrap().revocations.len()
        };
        service.sessions.void_tokens([Holder::User(Uuid::now_v7())]).await.unwrap();
        service.sessions.void_tokens([Holder::User(Uuid::now_v7())]).await.unwrap();
        clock.set_by(TimeDelta::minutes(150));
        crate::sweep::sweep(&**store, &clock, metrics).await.unwrap();
        assert_eq!(watch().await, 2, "a watcher that starts meanwhile");
        clock.set_by(TimeDelta::minutes(-150));
        assert_eq!(watch().await, 2);
        clock.advance(Duration::from_mins(181));
        crate::sweep::sweep(&**store, &clock, metrics).await.unwrap();
        assert_eq!(watch().await, 0);
        stop.cancel();
    }

    #[tokio::test]
    async fn a_retry_after_another_instance_ended_the_session_waits_for_acknowledgements() {
        let (directory, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let Sessions { store, lifetimes, clock, .. } = service(&directory, &stop).await.sessions;
        let sessions = service(&directory, &stop).await.sessions;
        let user_id = Uuid::now_v7();
        let new = NewSession { user_id, device: String::new(), address: String::new(), methods: Vec::new() };
        let session = lifetimes.start(new, clock.now());
        store.insert(&session).await.unwrap();
        // The other instance ended it, and stopped before it announced the revocation to any watcher.
        let revocation = store.end(user_id, session.id, &lifetimes, clock.now()).await.unwrap().revocation.unwrap();

        let mut watcher = sessions.hub.subscribe(sessions.hub.reserve(None).unwrap(), 0);
        let retry = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.revoke(user_id, session.id).await }
        });
        assert_eq!(watcher.next().await, crate::hub::Event::NewRevocations);
        assert!(!retry.is_finished(), "the watcher has not acknowledged");
        watcher.acknowledger().acknowledge(revocation);
        assert!(matches!(retry.await.unwrap(), Err(Error::NotFound)));
        stop.cancel();
    }

    #[tokio::test]
    async fn watchers_stay_connected_until_the_last_revoking_call_has_returned() {
        let (directory, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let service = service(&directory, &stop).await;
        let call = service.sessions.revoking_calls.token();
        stop.cancel();
        let feeds = &service.feeds.stop;
        assert!(tokio::time::timeout(Duration::from_millis(20), feeds.cancelled()).await.is_err());
        drop(call);
        tokio::time::timeout(Duration::from_secs(20), feeds.cancelled()).await.unwrap();
    }
}
