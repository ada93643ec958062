//! Registration: a credential here, an account at the user service, and no half of it that stands in the way.
//!
//! The credential is written first, under an id made here; then the account is created under that id, which is safe to
//! repeat. If the account cannot be, the credential is removed. If it is not known whether the account is there, the
//! credential stays, and stays pending: without an account it lets nobody in, the same `request_id` again goes on from
//! it, and if nobody asks again [`OrphanSweep`](crate::orphan_sweep::OrphanSweep) removes it.

use std::sync::Arc;

use drystone::user::v1::User;
use drystone_mesh::{
    call::{self, Call},
    clock::Clock,
    display_name::DisplayName,
    email::Email,
    error::{Chain, Reason},
    id,
};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    credential::Credential,
    error::Error,
    password::{
        hasher::HashingPool,
        typed_password::{PasswordForm, TypedPassword},
    },
    store::AuthStore,
    upstreams::Upstreams,
};

/// Registers people.
pub struct Registration {
    /// The other services.
    pub upstreams: Arc<dyn Upstreams>,
    /// Where the credentials go.
    pub store: AuthStore,
    /// Where passwords are hashed.
    pub hashing: Arc<HashingPool>,
    /// The time.
    pub clock: Clock,
}

/// What somebody who registers brings along.
#[derive(Debug)]
pub struct NewAccount {
    /// The email address.
    pub email: Email,
    /// The password.
    pub password: TypedPassword,
    /// The name that is shown.
    pub display_name: DisplayName,
    /// Names the registration, so that it can be repeated.
    pub request_id: Option<Uuid>,
}

impl Registration {
    /// Creates an account with a password, or goes on with the registration of the same `request_id`.
    ///
    /// # Errors
    /// `EMAIL_TAKEN` from the user service; [`Error::RequestIdReused`]; what the upstreams, the hashing pool and the
    /// store fail with.
    pub async fn register(&self, call: &Call, new: NewAccount) -> Result<User, Error> {
        if let Some(earlier) = self.earlier(new.request_id).await? {
            return self.resume(call, new, earlier).await;
        }
        let form = PasswordForm::Opaque;
        let password = new.password.in_form(form).clone();
        let password_hash = self.hashing.hash(password, call.fields().deadline).await?;
        let now = self.clock.now();
        let credential = Credential {
            user_id: id::v7_at(now),
            password_hash,
            form,
            request_id: new.request_id,
            pending_since: Some(now),
            created_at: now,
            updated_at: now,
        };
        if !self.store.insert_credential(&credential).await? {
            // The same registration ran beside this one and was faster.
            let earlier = self.earlier(new.request_id).await?.ok_or(Error::RequestIdReused)?;
            return self.resume(call, new, earlier).await;
        }

        let user_id = credential.user_id;
        let created = self.create_account(call, user_id, new.email, new.display_name).await;
        if let Err(error) = &created
            && leaves_no_account(error.reason())
            // Not if the same registration runs beside this one and has taken it up: it may fare better.
            && let Err(error) = self.store.delete_pending_credential(user_id, now).await
        {
            warn!(%user_id, cause = %Chain(&error), "credential of a failed registration stays behind");
        }
        created
    }

    async fn earlier(&self, request_id: Option<Uuid>) -> Result<Option<Credential>, Error> {
        match request_id {
            Some(request_id) => Ok(self.store.resume_credential(request_id, self.clock.now()).await?),
            None => Ok(None),
        }
    }

    /// Goes on with a registration whose credential is there. Whatever comes of it, the credential stays: there may be
    /// an account that it belongs to.
    async fn resume(&self, call: &Call, new: NewAccount, earlier: Credential) -> Result<User, Error> {
        let password = new.password.in_form(earlier.form).clone();
        let verdict = self.hashing.verify(password, earlier.password_hash, call.fields().deadline).await?;
        if !verdict.is_right() {
            return Err(Error::RequestIdReused);
        }
        self.create_account(call, earlier.user_id, new.email, new.display_name).await
    }

    async fn create_account(
        &self,
        call: &Call,
        user_id: Uuid,
        email: Email,
        display_name: DisplayName,
    ) -> Result<User, Error> {
        call::record_user(user_id);
        let user = self.upstreams.create_account(call, user_id, email, display_name).await?;
        if let Err(error) = self.store.confirm_credential(user_id).await {
            // The first sign-in or the sweep makes up for it.
            debug!(%user_id, cause = %Chain(&error), "credential not confirmed");
        }
        Ok(user)
    }
}

/// Whether a failure for this reason proves that no account was created under an id that is new. Only the user service
/// itself refuses for these: a response is decoded without validation, so that none is made of an account that exists.
fn leaves_no_account(reason: Reason) -> bool {
    matches!(reason, Reason::EmailTaken | Reason::InvalidRequest)
}
