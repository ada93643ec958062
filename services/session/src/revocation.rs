//! Revocations of sessions and tokens.

use chrono::TimeDelta;
use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

/// How long the revocation of a key is kept. The key has left the key set, so it is for watchers that still have an earlier one, and for
/// auth, whose database may be restored from a backup that has the key.
pub const KEY_RETENTION: TimeDelta = TimeDelta::days(365);

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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every token of this session.
    Session(Uuid),
    /// Tokens that were issued at or before a timestamp.
    Tokens {
        /// Whose.
        of: Holder,
        /// The timestamp.
        void_until: Timestamp,
    },
    /// Every token that the signing key with this id has signed or will sign.
    Key(String),
}

/// Whose tokens are void.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Those of one user.
    User(Uuid),
    /// Those with this role.
    Role(String),
}

impl Holder {
    /// How it is stored: the user, nil for a role, and the role. So a release that does not know roles reads a revocation of a user
    /// who does not exist, and does not stop there.
    pub(crate) fn to_columns(&self) -> (Uuid, Option<&str>) {
        match self {
            Self::User(id) => (*id, None),
            Self::Role(role) => (Uuid::nil(), Some(role)),
        }
    }

    /// From its columns.
    pub(crate) fn from_columns(user_id: Uuid, role: Option<String>) -> Self {
        role.map_or(Self::User(user_id), Self::Role)
    }
}
