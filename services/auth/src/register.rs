//! Registration: creates a credential here and an account at the user service.
//!
//! Where addresses have to be verified, a registration must not tell whether an address has an account: the credential is stored with a
//! message that creates the account afterwards, so that the answer and its time are always the same.
//!
//! The credential is inserted first, with a new user id; then the account is created with that id, which is idempotent.
//! If the user service rejects the account, the credential is deleted. If the outcome is unknown, the credential stays
//! pending: nobody can sign in without an account, a retry with the same `request_id` continues from it, and without a
//! retry [`OrphanSweep`](crate::orphan_sweep::OrphanSweep) removes it.

use std::sync::Arc;

use drystone::user::v1::User;
use drystone_mesh::{
    call::{self, Call},
    clock::{Clock, Timestamp},
    display_name::DisplayName,
    email::Email,
    error::{Chain, Reason},
    id,
};
use drystone_store::outbox::Relay;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    attempts::AttemptLimits,
    credential::Credential,
    error::Error,
    follow_up::FollowUp,
    password::{
        hasher::{HashingPool, JobOrigin},
        new_password::NewPasswords,
        typed_password::{PasswordForm, TypedPassword},
    },
    store::AuthStore,
    upstreams::{Contact, Upstreams},
};

/// Registers users.
pub struct Registration {
    /// The other services.
    pub upstreams: Arc<dyn Upstreams>,
    /// The store of credentials.
    pub store: AuthStore,
    /// Rate limits.
    pub attempts: AttemptLimits,
    /// Hashes passwords.
    pub hashing: Arc<HashingPool>,
    /// Checks and hashes new passwords.
    pub(crate) passwords: NewPasswords,
    /// Delivers what follows.
    pub relay: Relay,
    /// Source of time.
    pub clock: Clock,
    /// Whether the address has to be verified before the account is used.
    pub requires_verified_email: bool,
}

/// A validated registration request.
#[derive(Debug)]
pub struct NewRegistration {
    /// The email address.
    pub email: Email,
    /// The password.
    pub password: TypedPassword,
    /// The display name.
    pub display_name: DisplayName,
    /// The client's idempotency key.
    pub request_id: Option<Uuid>,
}

impl Registration {
    /// Creates an account with a password, or resumes the registration with the same `request_id`. `None` if its owner has to verify the
    /// address first, whether it has an account already or not; a repetition with the same request id then changes nothing.
    ///
    /// # Errors
    /// `EMAIL_TAKEN` from the user service; [`Error::RequestIdReused`]; other errors of the upstreams, the hashing pool
    /// and the store.
    pub async fn register(&self, call: &Call, new: NewRegistration) -> Result<Option<User>, Error> {
        if self.requires_verified_email {
            self.register_for_verification(call, new).await?;
            return Ok(None);
        }
        self.register_at_once(call, new).await.map(Some)
    }

    async fn register_for_verification(&self, call: &Call, new: NewRegistration) -> Result<(), Error> {
        let credential = self.credential(call, &new, new.request_id).await?;
        let create = FollowUp::CreateAccount {
            user_id: credential.user_id,
            email: new.email.into_string(),
            display_name: new.display_name.into_string(),
        };
        self.store.insert_credential_with(&credential, &create.message(credential.created_at)?).await?;
        self.relay.wake();
        Ok(())
    }

    async fn register_at_once(&self, call: &Call, new: NewRegistration) -> Result<User, Error> {
        if let Some(existing) = self.existing_credential(new.request_id).await? {
            return self.resume(call, new, existing).await;
        }
        let credential = self.credential(call, &new, new.request_id).await?;
        let now = credential.created_at;
        if !self.store.insert_credential(&credential).await? {
            // A concurrent request with the same id inserted its credential first.
            let existing = self.existing_credential(new.request_id).await?.ok_or(Error::RequestIdReused)?;
            return self.resume(call, new, existing).await;
        }

        let user_id = credential.user_id;
        let created = self.create_account(call, user_id, new.email, new.display_name).await;
        if let Err(error) = &created
            && proves_no_account(error.reason())
            // Not deleted if a concurrent request has resumed it since `now`: that one may succeed.
            && let Err(error) = self.store.delete_pending_credential(user_id, now).await
        {
            warn!(%user_id, cause = %Chain(&error), "credential of a failed registration not deleted");
        }
        created
    }

    /// The pending credential of a new user.
    async fn credential(
        &self,
        call: &Call,
        new: &NewRegistration,
        request_id: Option<Uuid>,
    ) -> Result<Credential, Error> {
        let user_id = id::v7_at(self.clock.now());
        let contact = Contact {
            user_id,
            email: new.email.as_str().to_owned(),
            display_name: new.display_name.as_str().to_owned(),
            given_name: String::new(),
            family_name: String::new(),
            locale: String::new(),
            is_active: true,
            email_verified: false,
        };
        let password_hash = self.passwords.hash_for(call, contact, &new.password).await?;
        let now = self.clock.now();
        Ok(Credential {
            user_id,
            password_hash,
            form: PasswordForm::Opaque,
            request_id,
            pending_since: Some(now),
            created_at: now,
            updated_at: now,
            reset_required_at: None,
            recovered_at: None,
            second_factor_since: None,
        })
    }

    async fn existing_credential(&self, request_id: Option<Uuid>) -> Result<Option<Credential>, Error> {
        match request_id {
            Some(request_id) => Ok(self.store.resume_credential(request_id, self.clock.now()).await?),
            None => Ok(None),
        }
    }

    /// Resumes a registration whose credential exists. The credential is never deleted here, since its account may
    /// exist.
    async fn resume(&self, call: &Call, new: NewRegistration, existing: Credential) -> Result<User, Error> {
        // Who knows the request id could guess the password here, so that it counts like a sign-in.
        let attempt = self.attempts.repeated_registration(existing.user_id).await?;
        let password = new.password.in_form(existing.form).clone();
        let verification =
            self.hashing.verify(password, existing.password_hash, origin(call), call.fields().deadline).await?;
        if !verification.is_match() {
            return Err(Error::RequestIdReused);
        }
        attempt.succeeded().await;
        self.create_account(call, existing.user_id, new.email, new.display_name).await
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
        match confirm(&self.store, user_id, self.clock.now()).await {
            Ok(()) => self.relay.wake(),
            // The first sign-in or the orphan sweep confirms it.
            Err(error) => debug!(%user_id, cause = %Chain(&error), "credential not confirmed"),
        }
        Ok(user)
    }
}

/// Confirms a pending credential, since its account exists, and has a link sent to verify the address.
pub(crate) async fn confirm(store: &AuthStore, user_id: Uuid, now: Timestamp) -> Result<(), Error> {
    let message = FollowUp::SendVerification { user_id }.message(now)?;
    Ok(store.confirm_credential_with(user_id, &message).await?)
}

fn origin(call: &Call) -> JobOrigin {
    JobOrigin::unknown(&call.fields().client)
}

/// Whether a failure with this reason proves that no account was created with the new id. Only the user service itself
/// fails with these reasons: responses are not validated, so a response about an existing account cannot cause them.
pub(crate) fn proves_no_account(reason: Reason) -> bool {
    matches!(reason, Reason::EmailTaken | Reason::InvalidRequest)
}
