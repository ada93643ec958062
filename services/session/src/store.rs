//! Where sessions and revocations are kept.

mod redis;
mod sql;

use std::future;

use async_trait::async_trait;
use drystone_mesh::{clock::Timestamp, page::Page};
use drystone_store::redis::Failure;
use uuid::Uuid;

pub use self::{
    redis::RedisStore,
    sql::{MIGRATIONS, SqlStore},
};
use crate::{
    revocation::Revocation,
    rotation::Rotation,
    session::{Lifetimes, Session},
};

/// Where sessions and revocations are kept. What every store promises is written down in `tests/session/store.rs`.
///
/// Each method is one atomic transition: two calls at once end as if one had come after the other. Ending a session
/// and revoking its tokens are one transition, so that neither is ever there without the other.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Adds a session.
    async fn insert(&self, session: &Session) -> Result<(), StoreError>;

    /// Presents the refresh token with this counter.
    async fn rotate(&self, id: Uuid, counter: u64, rules: &Lifetimes, now: Timestamp) -> Result<Rotation, StoreError>;

    /// The live sessions of a page and one more, if there is one; newest first.
    async fn list(&self, user_id: Uuid, page: &Page, now: Timestamp) -> Result<Vec<Session>, StoreError>;

    /// Ends a session if it is this user's and live, and revokes its tokens.
    async fn end(&self, user_id: Uuid, id: Uuid, rules: &Lifetimes, now: Timestamp) -> Result<Ended, StoreError>;

    /// Ends every live session of this user but one, and revokes their tokens.
    async fn end_all(
        &self,
        user_id: Uuid,
        keep: Option<Uuid>,
        rules: &Lifetimes,
        now: Timestamp,
    ) -> Result<Ended, StoreError>;

    /// Revokes the tokens that this user has now. Answers the number of the revocation.
    async fn void_tokens(&self, user_id: Uuid, rules: &Lifetimes, now: Timestamp) -> Result<u64, StoreError>;

    /// What was revoked after this number and is still of use, in order, at most so many.
    async fn revocations_after(&self, seq: u64, limit: u32, now: Timestamp) -> Result<Vec<Revocation>, StoreError>;

    /// The number of the newest revocation; 0 if there never was one.
    async fn newest_revocation(&self) -> Result<u64, StoreError>;

    /// Forgets what has expired, apart from the newest revocation, whose number tells a cursor of this store from that
    /// of another.
    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError>;

    /// Waits until something is revoked after this number by whichever instance of the service, or was; answers the
    /// number of the newest such revocation that it knows of. A smaller number means that the store has lost some.
    ///
    /// A store that cannot tell waits for ever: then watchers hear of the others' revocations with a sign of life.
    async fn news(&self, after: u64) -> Result<u64, StoreError> {
        let _ = after;
        future::pending().await
    }

    /// How many sessions are live.
    async fn count_live(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// What an ending came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// How many sessions.
    pub sessions: u32,
    /// The greatest number of their revocations; `None` if nothing ended. It can be there although nothing ended, where
    /// an earlier call had ended it and could not tell everybody.
    pub revocation: Option<u64>,
}

/// How much was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Expired sessions.
    pub sessions: u64,
    /// Revocations of tokens that have ended by themselves.
    pub revocations: u64,
}

/// A failure of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed.
    #[error("the database failed")]
    Sql(#[from] sqlx::Error),
    /// Redis failed.
    #[error(transparent)]
    Redis(#[from] Failure),
    /// The store holds something that is none of ours.
    #[error("the store holds {0}")]
    Unreadable(&'static str),
}
