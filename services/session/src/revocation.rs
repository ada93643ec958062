//! What can be revoked.

use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

/// Something that has been revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Its place in the order of all revocations, from 1: what watchers acknowledge and go on from.
    pub seq: u64,
    /// What is void.
    pub scope: Scope,
    /// When the last token that it concerns has ended by itself.
    pub forget_at: Timestamp,
}

/// What is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every token of this session.
    Session(Uuid),
    /// The tokens of one user that were made at or before a moment.
    UserTokens {
        /// Whose.
        user_id: Uuid,
        /// The moment.
        void_until: Timestamp,
    },
}
