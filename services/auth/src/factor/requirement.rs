//! Roles whose users need a second factor.

use std::time::Duration;

use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

use crate::{error::Error, store::AuthStore};

/// Which users need a second factor, and from when on.
#[derive(Debug, Clone)]
pub struct FactorRequirement {
    pub(crate) roles: Vec<String>,
    /// How long a user can sign in without one, from the first time that they do.
    pub(crate) grace_period: Duration,
    pub(crate) store: AuthStore,
}

impl FactorRequirement {
    /// Whether a user with these roles needs one.
    #[must_use]
    pub fn applies(&self, roles: &[String]) -> bool {
        roles.iter().any(|role| self.roles.contains(role))
    }

    /// From when on a user without a second factor gets no session; `None` if they need none. Costs nothing for them.
    pub(crate) async fn due_at(
        &self,
        user_id: Uuid,
        roles: &[String],
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        if !self.applies(roles) {
            return Ok(None);
        }
        // Not of a clock that was ahead.
        let since = self.store.factor_required_since(user_id, now).await?.min(now);
        Ok(Some(since + self.grace_period))
    }
}
