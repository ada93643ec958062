//! Properties.

use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

use crate::Content;

/// Something that a user owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Its id, a UUID of version 7.
    pub id: Uuid,
    /// The user who owns it.
    pub owner_id: Uuid,
    /// Its content.
    pub content: Content,
    /// Incremented with each change; the etag is derived from it.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A property to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProperty {
    /// Its id, a UUID of version 7; not used if the request id created a property before.
    pub id: Uuid,
    /// The user who will own it.
    pub owner_id: Uuid,
    /// The idempotency key of the client, so that the creation can be retried.
    pub request_id: Option<Uuid>,
    /// Its content.
    pub content: Content,
}
