//! Revocations of sessions and tokens.

use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Its sequence number among all revocations, from 1: the cursor that watchers acknowledge and continue from.
    pub seq: u64,
    /// The tokens that are void.
    pub scope: Scope,
    /// When the last token in its scope has expired, so that it can be deleted.
    pub forget_at: Timestamp,
}

/// The tokens that a revocation voids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every token of this session.
    Session(Uuid),
    /// The tokens of one user that were issued at or before a timestamp.
    UserTokens {
        /// The user.
        user_id: Uuid,
        /// The timestamp.
        void_until: Timestamp,
    },
}
