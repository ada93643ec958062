//! What an account is.

use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

use crate::{DisplayName, Email, Roles};

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id, a UUID of version 7.
    pub id: Uuid,
    /// The address, as the user wrote it.
    pub email: Email,
    /// The name that is shown.
    pub display_name: DisplayName,
    /// The roles.
    pub roles: Roles,
    /// Counts the changes; the etag is made of it.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// An account that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccount {
    /// Its id, a UUID of version 7 that the caller made.
    pub id: Uuid,
    /// The address.
    pub email: Email,
    /// The name that is shown.
    pub display_name: DisplayName,
    /// The roles.
    pub roles: Roles,
}
