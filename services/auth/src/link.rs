//! Links in mails: each serves once and for a time.

use std::time::Duration;

use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

use crate::token::link_token::Purpose;

/// How long a link to choose a new password serves.
pub const PASSWORD_RESET_LIFETIME: Duration = Duration::from_mins(30);

/// How many links of one purpose a user is sent in [`LINK_INTERVAL`]: who asks for more bothers them.
pub(crate) const MAX_LINKS: u32 = 5;
pub(crate) const LINK_INTERVAL: Duration = Duration::from_hours(1);

/// A link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its id, which is that of the message that sends it.
    pub id: Uuid,
    /// What it is for.
    pub purpose: Purpose,
    /// The user.
    pub user_id: Uuid,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it has expired.
    pub expires_at: Timestamp,
}
