//! The keys in Redis.
//!
//! | key | value |
//! |---|---|
//! | `session:{SHARD}:ID` | a session; expires |
//! | `user:{SHARD}:USER` | the ids of a user's sessions, in order; expires with the last session |
//! | `ends:{SHARD}` | when each session of the shard expires, for the sweep |
//! | `outbox:{SHARD}` | ended sessions whose revocation may not be in the stream yet |
//! | `{revocations}` | the stream of all revocations |
//! | `{revocations}:of:ID` | the stream id of a session's revocation; expires |
//!
//! The part in braces is the hash tag, which determines the slot in a Cluster: all keys of one script share it.

use drystone_store::redis::Redis;
use uuid::Uuid;

use crate::session::UserShard;

/// Builds the keys of the store.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn of(redis: &Redis) -> Self {
        Self { prefix: redis.prefix().to_owned() }
    }

    /// The prefix of the keys of a shard's sessions.
    pub(super) fn sessions(&self, shard: UserShard) -> String {
        format!("{}session:{{{shard}}}:", self.prefix)
    }

    pub(super) fn session(&self, id: Uuid) -> String {
        self.sessions(UserShard::of_session(id)) + &text(id)
    }

    /// The prefix of the keys of the session lists of a shard's users.
    pub(super) fn users(&self, shard: UserShard) -> String {
        format!("{}user:{{{shard}}}:", self.prefix)
    }

    pub(super) fn user(&self, user_id: Uuid) -> String {
        self.users(UserShard::of_user(user_id)) + &text(user_id)
    }

    pub(super) fn ends(&self, shard: UserShard) -> String {
        format!("{}ends:{{{shard}}}", self.prefix)
    }

    pub(super) fn outbox(&self, shard: UserShard) -> String {
        format!("{}outbox:{{{shard}}}", self.prefix)
    }

    pub(super) fn stream(&self) -> String {
        format!("{}{{revocations}}", self.prefix)
    }

    pub(super) fn stream_id(&self, id: Uuid) -> String {
        format!("{}{{revocations}}:of:{}", self.prefix, text(id))
    }
}

/// An id in keys and values: 32 hexadecimal digits, which sort like the ids.
pub(super) fn text(id: Uuid) -> String {
    id.simple().to_string()
}
