//! The authenticated end user of a call.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use crate::clock::Timestamp;

/// The end user of a call, from a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user.
    pub user_id: Uuid,
    /// The session that the token belongs to.
    pub session_id: Uuid,
    /// The token's id.
    pub token_id: Uuid,
    /// The key that signed the token: its `kid`.
    pub key_id: Arc<str>,
    /// When the token was issued, to the millisecond.
    pub issued_at: Timestamp,
    /// When the token expires.
    pub expires_at: Timestamp,
    /// When the user last authenticated.
    pub auth_time: Timestamp,
    /// How (RFC 8176), such as `pwd` and `otp`.
    pub amr: Vec<String>,
    /// The user's roles when the token was issued.
    pub roles: Vec<String>,
    /// The user's permissions, as `RESOURCE:ACTION`.
    pub permissions: Vec<String>,
    /// The properties that the user has a relation to: id and relation.
    pub properties: BTreeMap<String, String>,
}

impl Principal {
    /// Whether the user has authenticated by this method (RFC 8176) in this session.
    #[must_use]
    pub fn has_used(&self, method: &str) -> bool {
        self.amr.iter().any(|used| used == method)
    }

    /// Whether the user has this permission. Who has `RESOURCE:ACTION:any` has `RESOURCE:ACTION:own`.
    #[must_use]
    pub fn has_permission(&self, permission: &str) -> bool {
        let own = permission.strip_suffix(":own");
        self.permissions
            .iter()
            .any(|granted| granted == permission || own.is_some_and(|own| granted.strip_suffix(":any") == Some(own)))
    }
}
