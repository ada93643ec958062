//! New passwords: checked by the policy, and hashed.

use std::sync::Arc;

use drystone_mesh::call::Call;
use tokio::{sync::Semaphore, task::spawn_blocking};
use uuid::Uuid;

use crate::{
    error::Error,
    password::{
        PasswordHash,
        hasher::{HashingPool, JobOrigin},
        policy::{OwnWords, Policy},
        typed_password::{PasswordForm, TypedPassword},
    },
    upstreams::{Contact, Upstreams},
};

/// Checks and hashes new passwords. Clones share the policy.
#[derive(Clone)]
pub(crate) struct NewPasswords {
    pub(crate) policy: Arc<Policy>,
    pub(crate) hashing: Arc<HashingPool>,
    pub(crate) upstreams: Arc<dyn Upstreams>,
    /// As many checks at once as there are cores: each takes milliseconds.
    pub(crate) checks: Arc<Semaphore>,
}

impl NewPasswords {
    /// Checks a new password of this user, and hashes it.
    ///
    /// # Errors
    /// [`Error::PasswordTooWeak`]; [`Error::InvalidCredentials`] if the account is gone.
    pub(crate) async fn hash(&self, call: &Call, user_id: Uuid, new: &TypedPassword) -> Result<PasswordHash, Error> {
        let contact = self.upstreams.contact_by_id(call, user_id).await?.ok_or(Error::InvalidCredentials)?;
        self.hash_for(call, contact, new).await
    }

    /// Checks a new password of the user with this contact, and hashes it.
    ///
    /// # Errors
    /// [`Error::PasswordTooWeak`].
    pub(crate) async fn hash_for(
        &self,
        call: &Call,
        contact: Contact,
        new: &TypedPassword,
    ) -> Result<PasswordHash, Error> {
        let password = new.in_form(PasswordForm::Opaque).clone();
        let (policy, checked) = (Arc::clone(&self.policy), password.clone());
        let _turn = self.checks.acquire().await.map_err(|_| Error::PolicyStopped)?;
        let check = spawn_blocking(move || {
            let words = OwnWords {
                email: Some(&contact.email),
                display_name: Some(&contact.display_name),
                given_name: Some(&contact.given_name),
                family_name: Some(&contact.family_name),
            };
            policy.check(&checked.0, &words)
        });
        check.await.map_err(|_| Error::PolicyStopped)??;
        let origin = JobOrigin::unknown(&call.fields().client);
        Ok(self.hashing.hash(password, origin, call.fields().deadline).await?)
    }
}
