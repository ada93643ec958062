//! What a property is.

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
    /// What the owner says of it.
    pub content: Content,
    /// Counts the changes; the etag is made of it.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A property that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProperty {
    /// Its id, a UUID of version 7; not used if the request was answered before.
    pub id: Uuid,
    /// The user who will own it.
    pub owner_id: Uuid,
    /// What the client calls this creation, so that it can be repeated after a lost answer.
    pub request_id: Option<Uuid>,
    /// What the owner says of it.
    pub content: Content,
}
