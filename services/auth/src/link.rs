//! Links in mails: each serves once and for a time.

use std::time::Duration;

use chrono::DateTime;
use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

pub use crate::token::link_token::Purpose;

/// How many links of one purpose a user is sent in [`LINK_INTERVAL`]: who asks for more bothers them.
pub(crate) const MAX_LINKS: u32 = 5;
pub(crate) const LINK_INTERVAL: Duration = Duration::from_hours(1);

/// How long a change of the e-mail address can be undone.
pub const UNDO_LIFETIME: Duration = Duration::from_hours(7 * 24);

impl Purpose {
    /// How long its links serve, or mails without a link count.
    #[must_use]
    pub const fn lifetime(self) -> Duration {
        match self {
            Self::PasswordReset => Duration::from_mins(30),
            Self::EmailVerification | Self::EmailChange | Self::SessionShared => Duration::from_hours(24),
            Self::EmailUndo | Self::SignInReport => UNDO_LIFETIME,
            Self::AddressTaken => LINK_INTERVAL,
        }
    }

    /// The page of the application that its links lead to.
    pub(crate) const fn page(self) -> &'static str {
        match self {
            Self::PasswordReset => "reset-password",
            Self::EmailVerification | Self::EmailChange => "verify-email",
            Self::EmailUndo => "undo-email-change",
            Self::SignInReport => "report-sign-in",
            Self::AddressTaken | Self::SessionShared => "sign-in",
        }
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: Uuid,
    /// What it is for.
    pub purpose: Purpose,
    /// The user.
    pub user_id: Uuid,
    /// The address that it is about: the one that it is sent to, or for a change of the address the new one. Links of the release
    /// before have none.
    pub email: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it has expired.
    pub expires_at: Timestamp,
}

impl Link {
    /// When that happened which the link follows from: its id is that of the message, made at that time.
    #[must_use]
    pub fn followed_at(&self) -> Timestamp {
        let time = self.id.get_timestamp().map(|time| time.to_unix());
        let time = time.and_then(|(seconds, nanos)| DateTime::from_timestamp(seconds.try_into().ok()?, nanos));
        time.map_or(self.created_at, |time| time.min(self.created_at))
    }

    /// A link that is made now.
    #[must_use]
    pub fn new(id: Uuid, purpose: Purpose, user_id: Uuid, email: String, now: Timestamp) -> Self {
        Self { id, purpose, user_id, email: Some(email), created_at: now, expires_at: now + purpose.lifetime() }
    }
}
