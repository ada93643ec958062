//! The stores of sessions and revocations.

mod redis;
mod sql;

use std::future;

use async_trait::async_trait;
use drystone_mesh::{clock::Timestamp, page::Page};
use drystone_store::redis::CommandError;
use uuid::Uuid;

pub use self::{
    redis::RedisStore,
    sql::{MIGRATIONS, SqlStore},
};
use crate::{
    revocation::{Holder, Revocation},
    rotation::{PresentedBy, Rotation},
    session::{Lifetimes, Session},
};

/// A store of sessions and revocations. `tests/session/store.rs` tests what every store promises.
///
/// Each method is one atomic transition: concurrent calls behave as if executed one after the other. Ending a session
/// and revoking its tokens are one transition, so that neither exists without the other.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Adds a session.
    async fn insert(&self, session: &Session) -> Result<(), StoreError>;

    /// Rotates the refresh token with this counter, as [`Lifetimes::present`] decides.
    async fn rotate(
        &self,
        id: Uuid,
        counter: u64,
        by: &PresentedBy,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<Rotation, StoreError>;

    /// Records that the user of an active session has proved who they are again. Returns it, or `None` if the user has no such session.
    async fn raise(
        &self,
        user_id: Uuid,
        id: Uuid,
        methods: &[String],
        now: Timestamp,
    ) -> Result<Option<Session>, StoreError>;

    /// The active sessions of a page, newest first, plus one more if there is a next page.
    async fn list(&self, user_id: Uuid, page: &Page, now: Timestamp) -> Result<Vec<Session>, StoreError>;

    /// How many sessions a user has: at least the active ones.
    async fn count_of_user(&self, user_id: Uuid, now: Timestamp) -> Result<u64, StoreError>;

    /// Ends a session if it is active and belongs to this user, and revokes its tokens.
    async fn end(
        &self,
        user_id: Uuid,
        id: Uuid,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<EndedSessions, StoreError>;

    /// Ends every active session of this user except for `keep`, and revokes their tokens. Each session ends atomically; a
    /// store may end a great number of them in several transitions.
    async fn end_all(
        &self,
        user_id: Uuid,
        keep: Option<Uuid>,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<EndedSessions, StoreError>;

    /// Revokes the access tokens issued so far to each of these. Returns the sequence number of the last revocation; 0 if there are
    /// none.
    async fn void_tokens(&self, of: &[Holder], lifetimes: &Lifetimes, now: Timestamp) -> Result<u64, StoreError>;

    /// Revokes the tokens that the key with this id has signed or will sign. Returns the sequence number of the revocation.
    async fn void_key(&self, key_id: &str, now: Timestamp) -> Result<u64, StoreError>;

    /// At most `limit` revocations after `seq` that have not expired, in order.
    async fn revocations_after(&self, seq: u64, limit: u32, now: Timestamp) -> Result<Vec<Revocation>, StoreError>;

    /// The sequence number of the newest revocation; 0 if there never was one.
    async fn newest_revocation(&self) -> Result<u64, StoreError>;

    /// Deletes expired sessions, and the revocations that have expired at `forget_until`, except for the newest one: its
    /// number exposes a cursor of a lost history.
    async fn sweep(&self, now: Timestamp, forget_until: Timestamp) -> Result<Swept, StoreError>;

    /// Waits for a revocation after this number, by any instance of the service. Returns the number of the newest one
    /// found. A smaller number than `after` means that the store has lost revocations.
    ///
    /// A store without notifications never returns: watchers then receive other instances' revocations with the next
    /// heartbeat.
    async fn wait_for_revocation(&self, after: u64) -> Result<u64, StoreError> {
        let _ = after;
        future::pending().await
    }

    /// The number of active sessions.
    async fn count_active(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// The outcome of ending sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndedSessions {
    /// How many sessions were ended.
    pub sessions: u32,
    /// The greatest sequence number of their revocations. It can be present although no session was ended, if an
    /// earlier call ended it and did not complete.
    pub revocation: Option<u64>,
}

/// How much a sweep deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Expired sessions.
    pub sessions: u64,
    /// Revocations of tokens that have expired.
    pub revocations: u64,
}

/// An error of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed.
    #[error("the database failed")]
    Sql(#[from] sqlx::Error),
    /// Redis failed.
    #[error(transparent)]
    Redis(#[from] CommandError),
    /// The store contains data that cannot be decoded.
    #[error("the store contains {0}")]
    Unreadable(&'static str),
}
