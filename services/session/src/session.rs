//! Sessions and their lifetimes.

use std::fmt;

use chrono::TimeDelta;
use drystone_mesh::{clock::Timestamp, config::ConfigDuration};
use uuid::Uuid;

use crate::{Config, authentication::Authentication};

/// The counter that a session's first refresh token carries.
pub const FIRST_COUNTER: u64 = 1;

/// How much longer than it matters a revocation is kept, so that a clock that is set forward and back again makes none
/// forgotten.
pub(crate) const MAX_CLOCK_JUMP: TimeDelta = TimeDelta::hours(2);

/// A session: one sign-in on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: Uuid,
    /// The user who signed in.
    pub user_id: Uuid,
    /// The device or client of the sign-in.
    pub device: String,
    /// The client address of the sign-in; empty if unknown.
    pub address: String,
    /// When the user signed in.
    pub created_at: Timestamp,
    /// When it was last refreshed; initially, when it was created.
    pub last_seen_at: Timestamp,
    /// When it expires unless it is refreshed. Never after `expires_at`.
    pub idle_expires_at: Timestamp,
    /// When it expires in any case.
    pub expires_at: Timestamp,
    /// The counter of the last refresh token that was issued.
    pub counter: u64,
    /// The counter of the last refresh token that was used; 0 if none was.
    pub confirmed: u64,
    /// How often the last issued token was given out again.
    pub repeats: u32,
    /// How many unused tokens were superseded since the last one that was used.
    pub replacements: u32,
    /// On how many consecutive rotations a token was given out again.
    pub repeated_rotations: u32,
    /// The device or client of the last refresh; at first, that of the sign-in.
    pub last_device: String,
    /// The client address of the last refresh; empty if unknown.
    pub last_address: String,
    /// How and when its user last proved who they are.
    pub authentication: Authentication,
}

/// A sign-in that creates a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// The user.
    pub user_id: Uuid,
    /// The device or client.
    pub device: String,
    /// The client address; empty if unknown.
    pub address: String,
    /// The methods of the sign-in (RFC 8176); empty for a password.
    pub methods: Vec<String>,
}

impl Session {
    /// Whether it has not expired. A session that was ended is deleted.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        now < self.idle_expires_at
    }
}

/// A partition of the users. A session's id contains its user's shard, so that a session can be located by its own id
/// and by its user's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserShard(u8);

/// The byte of a session's id that contains the shard. In a UUID of version 7 (RFC 9562) it is random; timestamp and
/// counter precede it.
const SHARD_BYTE: usize = 12;

impl UserShard {
    /// Every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// The shard of a user.
    #[must_use]
    pub fn of_user(user_id: Uuid) -> Self {
        Self(user_id.as_bytes().iter().fold(0, |shard, byte| shard ^ byte))
    }

    /// The shard of a session, which is that of its user.
    #[must_use]
    pub fn of_session(id: Uuid) -> Self {
        Self(id.as_bytes()[SHARD_BYTE])
    }

    /// A new id for a session in this shard.
    fn new_session_id(self) -> Uuid {
        let mut id = Uuid::now_v7().into_bytes();
        id[SHARD_BYTE] = self.0;
        Uuid::from_bytes(id)
    }
}

/// Two hexadecimal digits.
impl fmt::Display for UserShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

impl fmt::Debug for UserShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserShard({self})")
    }
}

/// Lifetimes of sessions and tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// How long a session lasts without a refresh.
    pub idle_timeout: TimeDelta,
    /// The maximum lifetime of a session.
    pub lifetime: TimeDelta,
    /// How long after a rotation the previous refresh token is accepted.
    pub rotation_grace: TimeDelta,
    /// The maximum lifetime of an access token. Revocations are kept that long.
    pub token_lifetime_max: TimeDelta,
}

impl Lifetimes {
    /// A session that starts now.
    #[must_use]
    pub fn start(&self, new: NewSession, now: Timestamp) -> Session {
        let NewSession { user_id, device, address, methods } = new;
        Session {
            id: UserShard::of_user(user_id).new_session_id(),
            user_id,
            last_device: device.clone(),
            last_address: address.clone(),
            device,
            address,
            created_at: now,
            last_seen_at: now,
            idle_expires_at: now + self.idle_timeout.min(self.lifetime),
            expires_at: now + self.lifetime,
            counter: FIRST_COUNTER,
            confirmed: FIRST_COUNTER - 1,
            repeats: 0,
            replacements: 0,
            repeated_rotations: 0,
            authentication: Authentication::new(now, methods),
        }
    }

    /// When a revocation made now can be deleted: all tokens in its scope have expired.
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

/// Bounded, so that adding it to a timestamp cannot overflow.
fn delta(span: ConfigDuration) -> TimeDelta {
    let max = TimeDelta::days(36_500);
    TimeDelta::from_std(span.duration()).unwrap_or(max).min(max)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_session_id_contains_the_shard_of_its_user_and_is_ordered_by_time() {
        let user = Uuid::now_v7();
        let ids: Vec<Uuid> = (0..1000).map(|_| UserShard::of_user(user).new_session_id()).collect();
        assert!(ids.is_sorted_by(|one, other| one < other));
        assert!(
            ids.iter().all(|id| id.get_version_num() == 7 && UserShard::of_session(*id) == UserShard::of_user(user))
        );
    }

    #[test]
    fn users_are_distributed_over_the_shards() {
        let used: HashSet<UserShard> = (0..5000).map(|_| UserShard::of_user(Uuid::now_v7())).collect();
        assert!(used.len() > 250, "{}", used.len());
    }
}
