//! What a user authenticates with: a password.

use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

use crate::{password::PasswordHash, password::typed_password::PasswordForm};

/// A user's password credential, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user. The user service owns the account.
    pub user_id: Uuid,
    /// The hash of the password.
    pub password_hash: PasswordHash,
    /// Which form of the password was hashed.
    pub form: PasswordForm,
    /// The client's idempotency key of the registration.
    pub request_id: Option<Uuid>,
    /// When the registration last started; `None` once the account is known to exist.
    pub pending_since: Option<Timestamp>,
    /// When the credential was created.
    pub created_at: Timestamp,
    /// When the credential was last changed, including a rehash.
    pub updated_at: Timestamp,
    /// Since when the password no longer serves, until a new one is chosen.
    pub reset_required_at: Option<Timestamp>,
    /// When the owner last took the account back.
    pub recovered_at: Option<Timestamp>,
    /// Since when the user has had a second factor, which completes each sign-in.
    pub second_factor_since: Option<Timestamp>,
}

impl Credential {
    /// Whether the user has a second factor.
    #[must_use]
    pub fn has_second_factor(&self) -> bool {
        self.second_factor_since.is_some()
    }
}
