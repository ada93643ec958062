//! What a session is, and how long it lives.

use std::fmt;

use chrono::TimeDelta;
use drystone_mesh::{clock::Timestamp, config::ConfigDuration};
use uuid::Uuid;

use crate::Config;

/// The counter that a session's first refresh token carries.
pub const FIRST_COUNTER: u64 = 1;

/// A session: one sign-in on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// What the user signed in with.
    pub device: String,
    /// Where the sign-in came from; empty if it is not known.
    pub address: String,
    /// When the user signed in.
    pub created_at: Timestamp,
    /// When it was last refreshed; at first, when it was made.
    pub last_seen_at: Timestamp,
    /// When it ends unless it is refreshed before. Never after `expires_at`.
    pub idle_expires_at: Timestamp,
    /// When it ends in any case.
    pub expires_at: Timestamp,
    /// What the refresh token that is good now carries.
    pub counter: u64,
}

/// What is known of a sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Who signed in.
    pub user_id: Uuid,
    /// With what.
    pub device: String,
    /// From where.
    pub address: String,
}

impl Session {
    /// Whether it has not expired. One that was ended is nowhere to be found.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.idle_expires_at
    }
}

/// A part of all users, by which a store can divide them. A session's id tells its user's, so that sessions can be found
/// by either.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard(u8);

/// Which byte of a session's id tells the shard. In a UUID of version 7 it is random: those before it tell the time and
/// count what comes at the same time.
const SHARD_BYTE: usize = 12;

impl Shard {
    /// Every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// A user's.
    #[must_use]
    pub fn of_user(user_id: Uuid) -> Self {
        Self(user_id.as_bytes().iter().fold(0, |shard, byte| shard ^ byte))
    }

    /// That of a session's user.
    #[must_use]
    pub fn of_session(id: Uuid) -> Self {
        Self(id.as_bytes()[SHARD_BYTE])
    }

    /// The id of a new session of one of its users.
    fn session_id(self) -> Uuid {
        let mut id = Uuid::now_v7().into_bytes();
        id[SHARD_BYTE] = self.0;
        Uuid::from_bytes(id)
    }
}

/// Two digits.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shard({self})")
    }
}

/// How long things live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// A session without a refresh.
    pub idle_timeout: TimeDelta,
    /// A session in any case.
    pub lifetime: TimeDelta,
    /// A refresh token that has been traded in, for an answer that was lost.
    pub rotation_grace: TimeDelta,
    /// An access token, and with it the memory of its revocation.
    pub token_lifetime_max: TimeDelta,
}

impl Lifetimes {
    /// A session that starts now.
    #[must_use]
    pub fn start(&self, new: NewSession, now: Timestamp) -> Session {
        let NewSession { user_id, device, address } = new;
        Session {
            id: Shard::of_user(user_id).session_id(),
            user_id,
            device,
            address,
            created_at: now,
            last_seen_at: now,
            idle_expires_at: now + self.idle_timeout.min(self.lifetime),
            expires_at: now + self.lifetime,
            counter: FIRST_COUNTER,
        }
    }

    /// When what is revoked now can be forgotten: the last token that it concerns has ended.
    #[must_use]
    pub fn forget_at(&self, now: Timestamp) -> Timestamp {
        now + self.token_lifetime_max
    }
}

impl From<&Config> for Lifetimes {
    fn from(config: &Config) -> Self {
        Self {
            idle_timeout: delta(config.idle_timeout),
            lifetime: delta(config.lifetime),
            rotation_grace: delta(config.rotation_grace),
            token_lifetime_max: delta(config.token_lifetime_max),
        }
    }
}

/// Bounded, so that no sum with a moment of ours leaves the calendar.
fn delta(span: ConfigDuration) -> TimeDelta {
    let longest = TimeDelta::days(36_500);
    TimeDelta::from_std(span.duration()).unwrap_or(longest).min(longest)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_session_tells_the_shard_of_its_user_and_stays_in_order() {
        let user = Uuid::now_v7();
        let ids: Vec<Uuid> = (0..1000).map(|_| Shard::of_user(user).session_id()).collect();
        assert!(ids.is_sorted_by(|one, other| one < other));
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && Shard::of_session(*id) == Shard::of_user(user)));
    }

    #[test]
    fn users_are_spread_over_the_shards() {
        let taken: HashSet<Shard> = (0..5000).map(|_| Shard::of_user(Uuid::now_v7())).collect();
        assert!(taken.len() > 250, "{}", taken.len());
    }
}
