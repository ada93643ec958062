//! What a session is, and how long it lives.

use chrono::TimeDelta;
use drystone_mesh::{clock::Timestamp, config::Span};
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

/// How long things live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A session without a refresh.
    pub idle_timeout: TimeDelta,
    /// A session in any case.
    pub lifetime: TimeDelta,
    /// A refresh token that has been traded in, for an answer that was lost.
    pub rotation_grace: TimeDelta,
    /// An access token, and with it the memory of its revocation.
    pub token_lifetime_max: TimeDelta,
}

impl Rules {
    /// A session that starts now.
    #[must_use]
    pub fn start(&self, new: NewSession, now: Timestamp) -> Session {
        let NewSession { user_id, device, address } = new;
        Session {
            id: Uuid::now_v7(),
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

impl From<&Config> for Rules {
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
fn delta(span: Span) -> TimeDelta {
    let longest = TimeDelta::days(36_500);
    TimeDelta::from_std(span.duration()).unwrap_or(longest).min(longest)
}
