//! The end user of a call, as a verified token proves them.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::clock::Timestamp;

/// The end user of a call. Only a verified token makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Who.
    pub user_id: Uuid,
    /// The session that the token belongs to.
    pub session_id: Uuid,
    /// The token's own id.
    pub token_id: Uuid,
    /// When the token was made, to the millisecond.
    pub issued_at: Timestamp,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// When the user last proved who they are.
    pub auth_time: Timestamp,
    /// The roles that the user had when the token was made.
    pub roles: Vec<String>,
    /// What the user may do beyond their own affairs, as `RESOURCE:ACTION`.
    pub permissions: Vec<String>,
    /// The properties that the user has to do with: id, and relation to it.
    pub properties: BTreeMap<String, String>,
}

impl Principal {
    /// Whether the user holds this permission.
    #[must_use]
    pub fn has_permission(&self, permission: &str) -> bool {
        self.permissions.iter().any(|held| held == permission)
    }
}
