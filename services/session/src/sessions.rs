//! What can be done with sessions: the store's transitions, and telling everybody.

use std::{future::Future, sync::Arc, time::Duration};

use drystone_mesh::{clock::Clock, store::page::Page};
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    Error,
    hub::Hub,
    metrics::SessionMetrics,
    rotation::Rotation,
    session::{NewSession, Rules, Session},
    store::{Ended, SessionStore, StoreError},
};

/// All sessions. Clones are the same.
#[derive(Clone)]
pub(crate) struct Sessions {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) hub: Hub,
    pub(crate) rules: Rules,
    /// How long a revoking call waits for the watchers.
    pub(crate) patience: Duration,
    pub(crate) clock: Clock,
    pub(crate) metrics: SessionMetrics,
    pub(crate) tasks: TaskTracker,
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
        let this = self.clone();
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
                self.hub.settle(revocation, self.patience).await;
                Err(Error::Reused)
            }
        }
    }

    pub(crate) async fn list(&self, user_id: Uuid, page: &Page) -> Result<Vec<Session>, Error> {
        Ok(self.store.list(user_id, page, self.clock.now()).await?)
    }

    /// Ends one session of this user.
    pub(crate) async fn revoke(&self, user_id: Uuid, id: Uuid) -> Result<(), Error> {
        let this = self.clone();
        let ended = self
            .to_its_end(async move {
                let ended = this.store.end(user_id, id, &this.rules, this.clock.now()).await?;
                Ok(this.announced(ended))
            })
            .await?;
        self.metrics.sessions_ended("revoked", ended.sessions);
        self.settled(ended).await;
        if ended.sessions == 0 { Err(Error::NotFound) } else { Ok(()) }
    }

    /// Ends every session of this user but one. Answers how many.
    pub(crate) async fn revoke_all(&self, user_id: Uuid, keep: Option<Uuid>) -> Result<u32, Error> {
        let this = self.clone();
        let ended = self
            .to_its_end(async move {
                let ended = this.store.end_all(user_id, keep, &this.rules, this.clock.now()).await?;
                Ok(this.announced(ended))
            })
            .await?;
        self.metrics.sessions_ended("revoked_all", ended.sessions);
        self.settled(ended).await;
        Ok(ended.sessions)
    }

    /// Voids the access tokens that this user has now.
    pub(crate) async fn void_tokens(&self, user_id: Uuid) -> Result<(), Error> {
        let this = self.clone();
        let revocation = self
            .to_its_end(async move {
                let revocation = this.store.void_tokens(user_id, &this.rules, this.clock.now()).await?;
                this.hub.announce(revocation);
                Ok(revocation)
            })
            .await?;
        self.hub.settle(revocation, self.patience).await;
        Ok(())
    }

    fn announced(&self, ended: Ended) -> Ended {
        if let Some(revocation) = ended.revocation {
            self.hub.announce(revocation);
        }
        ended
    }

    async fn settled(&self, ended: Ended) {
        if let Some(revocation) = ended.revocation {
            self.hub.settle(revocation, self.patience).await;
        }
    }

    /// Does work that has to go on if the caller goes away: what has been revoked must be announced.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Error> {
        Ok(self.tasks.spawn(work.in_current_span()).await??)
    }
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
