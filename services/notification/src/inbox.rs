//! The inbox: the messages of a user, and who watches it.

mod watch;

use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

pub(crate) use self::watch::Inboxes;

/// The maximum number of messages in an inbox; the oldest are removed.
pub const MAX_MESSAGES: u32 = 500;

/// A message in an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxMessage {
    /// Its id, a UUID of version 7.
    pub id: Uuid,
    /// The template.
    pub template: String,
    /// The category, such as `security`.
    pub category: String,
    /// The title.
    pub title: String,
    /// The text, without markup.
    pub body: String,
    /// When it arrived.
    pub created_at: Timestamp,
    /// When it was marked as read.
    pub read_at: Option<Timestamp>,
}
