//! Which keys there are, and where they lie.
//!
//! | key | holds |
//! |---|---|
//! | `session:{SHARD}:ID` | a session; expires by itself |
//! | `user:{SHARD}:USER` | the ids of a user's sessions, in order; expires with the last of them |
//! | `ends:{SHARD}` | when each session of the shard ends, for the sweep |
//! | `outbox:{SHARD}` | sessions that were ended and whose revocation may not be in the stream yet |
//! | `{revocations}` | the stream of all revocations |
//! | `{revocations}:of:ID` | the place of a session's revocation in the stream; expires by itself |
//!
//! What stands in braces places a key in a Cluster: all that one script touches has the same there.

use drystone_store::redis::Redis;
use uuid::Uuid;

use crate::session::Shard;

/// All keys of the store.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn of(redis: &Redis) -> Self {
        Self { prefix: redis.prefix().to_owned() }
    }

    /// What keys of a shard's sessions begin with.
    pub(super) fn sessions(&self, shard: Shard) -> String {
        format!("{}session:{{{shard}}}:", self.prefix)
    }

    pub(super) fn session(&self, id: Uuid) -> String {
        self.sessions(Shard::of_session(id)) + &text(id)
    }

    /// What keys of the sessions of a shard's users begin with.
    pub(super) fn users(&self, shard: Shard) -> String {
        format!("{}user:{{{shard}}}:", self.prefix)
    }

    pub(super) fn user(&self, user_id: Uuid) -> String {
        self.users(Shard::of_user(user_id)) + &text(user_id)
    }

    pub(super) fn ends(&self, shard: Shard) -> String {
        format!("{}ends:{{{shard}}}", self.prefix)
    }

    pub(super) fn outbox(&self, shard: Shard) -> String {
        format!("{}outbox:{{{shard}}}", self.prefix)
    }

    pub(super) fn stream(&self) -> String {
        format!("{}{{revocations}}", self.prefix)
    }

    pub(super) fn place(&self, id: Uuid) -> String {
        format!("{}{{revocations}}:of:{}", self.prefix, text(id))
    }
}

/// An id as keys and values have it: 32 digits, whose order is that of the ids.
pub(super) fn text(id: Uuid) -> String {
    id.simple().to_string()
}
