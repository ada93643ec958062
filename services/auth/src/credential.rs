//! What a user proves themselves with: today, a password.

use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

use crate::{password::PasswordHash, password::typed_password::PasswordForm};

/// A user's password, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose it is. The account itself is the user service's.
    pub user_id: Uuid,
    /// The hash of the password.
    pub password_hash: PasswordHash,
    /// Which form of the password it was made of.
    pub form: PasswordForm,
    /// The id that the client gave the registration, so that it could be repeated.
    pub request_id: Option<Uuid>,
    /// When the account was last asked for; none once it is known to be there.
    pub pending_since: Option<Timestamp>,
    /// When it was set first.
    pub created_at: Timestamp,
    /// When it, or the hash alone, was last changed.
    pub updated_at: Timestamp,
}
