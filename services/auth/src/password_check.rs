//! A signed-in user proves that they know the password of their account.

use std::sync::Arc;

use drystone_mesh::call::Call;
use uuid::Uuid;

use crate::{
    attempts::AttemptLimits,
    error::Error,
    password::{
        PasswordHash,
        hasher::{HashingPool, JobOrigin},
        typed_password::{PasswordForm, TypedPassword},
    },
    store::AuthStore,
    upstreams::Upstreams,
};

/// Checks passwords of signed-in users.
#[derive(Clone)]
pub(crate) struct PasswordCheck {
    pub(crate) attempts: AttemptLimits,
    pub(crate) upstreams: Arc<dyn Upstreams>,
    pub(crate) hashing: Arc<HashingPool>,
    pub(crate) store: AuthStore,
    /// What the password is verified against if the user has none.
    pub(crate) dummy_hash: PasswordHash,
}

impl PasswordCheck {
    /// Verifies the current password, and returns its hash.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`]; [`Error::PasswordResetRequired`] if it is right and no longer serves.
    pub(crate) async fn verify(
        &self,
        call: &Call,
        user_id: Uuid,
        current: &TypedPassword,
    ) -> Result<PasswordHash, Error> {
        let credential = self.store.credential(user_id).await?;
        let (hash, form) = credential.as_ref().map_or((&self.dummy_hash, PasswordForm::Opaque), |credential| {
            (&credential.password_hash, credential.form)
        });
        let (password, origin) = (current.in_form(form).clone(), JobOrigin::unknown(&call.fields().client));
        let verification = self.hashing.verify(password, hash.clone(), origin, call.fields().deadline).await?;
        match credential {
            Some(credential) if verification.is_match() => {
                if credential.reset_required_at.is_some() {
                    return Err(Error::PasswordResetRequired);
                }
                Ok(credential.password_hash)
            }
            _ => Err(Error::InvalidCredentials),
        }
    }
}
