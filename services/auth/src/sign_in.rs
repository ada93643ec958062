//! Sign-in with a password.
//!
//! An unknown email address, an invalid one and a wrong password take the same path, so that timing does not reveal
//! which accounts exist: one call to the user service, one to the property service, one read of the store, one hash.
//! Failures are stored after they were answered ([`SignInHistory`]).

mod passkey;
mod second_factor;

use std::sync::Arc;

use drystone_mesh::{
    call::{self, Call},
    clock::{Clock, Timestamp},
    email::Email,
    error::Chain,
    id,
};
use tracing::{debug, info};
use uuid::Uuid;

pub use self::second_factor::NewChallenge;
use crate::{
    attempts::AttemptLimits,
    authentication::Method,
    credential::Credential,
    error::Error,
    factor::{check::FactorCheck, requirement::FactorRequirement},
    metrics::SignInMetrics,
    password::{PasswordHash, Verification},
    password::{
        hasher::{HashingError, HashingPool, JobOrigin},
        typed_password::{PasswordForm, TypedPassword},
    },
    property_claims::PropertyClaims,
    register::confirm,
    sign_in_history::{self, Outcome, SignInHistory},
    store::AuthStore,
    token::{
        device_token::KnownDevice,
        key_ring::KeyRing,
        tokens::{TokenIssuer, TokenPair},
    },
    trusted_device::TrustedDevices,
    upstreams::{AccountClaims, Upstreams},
};

/// Signs users in.
pub struct SignIn {
    /// Rate limits.
    pub attempts: AttemptLimits,
    /// Device tokens.
    pub keys: Arc<KeyRing>,
    /// The other services.
    pub upstreams: Arc<dyn Upstreams>,
    /// The store of credentials.
    pub store: AuthStore,
    /// Checks second factors.
    pub factors: FactorCheck,
    /// Which users need one.
    pub requirement: FactorRequirement,
    /// Devices on which sign-ins need none.
    pub trusted_devices: TrustedDevices,
    /// Verifies passwords.
    pub hashing: Arc<HashingPool>,
    /// The hash that passwords of unknown accounts are verified against.
    pub dummy_hash: PasswordHash,
    /// Fetches the property claims of the access token.
    pub property_claims: PropertyClaims,
    /// Issues the tokens.
    pub issuer: Arc<TokenIssuer>,
    /// Source of time.
    pub clock: Clock,
    /// Stores sign-ins, also those that fail.
    pub history: SignInHistory,
    /// Counts them.
    pub metrics: SignInMetrics,
    /// Whether the address has to be verified first.
    pub requires_verified_email: bool,
}

/// What a right password leads to.
pub enum FirstStep {
    /// A session.
    SignedIn(SignedIn),
    /// A challenge, for a user with a second factor, unless the device is trusted.
    Challenged(NewChallenge),
}

/// The tokens of a sign-in.
pub struct SignedIn {
    /// The tokens of the session.
    pub tokens: TokenPair,
    /// The device token.
    pub device_token: String,
    /// From when on the user needs a second factor, if they have none.
    pub second_factor_required_at: Option<Timestamp>,
    /// Until when its device is trusted, if this sign-in has begun that.
    pub trusted_until: Option<Timestamp>,
}

impl SignIn {
    /// Verifies a password, starts a session and issues its first tokens; or a challenge, if the user has a second factor and the device is
    /// not trusted. `device_token` is that of an earlier sign-in, or empty; an invalid one counts as none.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`]; [`Error::AccountDisabled`], [`Error::PasswordResetRequired`], [`Error::EmailNotVerified`];
    /// [`Error::Limited`]; errors of the upstreams, the hashing pool and the store.
    pub async fn sign_in(
        &self,
        call: &Call,
        email: &str,
        password: TypedPassword,
        device_token: &str,
    ) -> Result<FirstStep, Error> {
        let signed_in = self.try_sign_in(call, email, password, device_token).await;
        match &signed_in {
            Ok(FirstStep::SignedIn(_)) => self.metrics.record(true),
            Err(error) if Outcome::of(error).is_some() => self.metrics.record(false),
            // It counts when it is completed; or it says nothing about who signs in.
            Ok(FirstStep::Challenged(_)) | Err(_) => {}
        }
        signed_in
    }

    async fn try_sign_in(
        &self,
        call: &Call,
        email: &str,
        password: TypedPassword,
        device_token: &str,
    ) -> Result<FirstStep, Error> {
        let as_of = self.clock.now();
        let address = Email::parse(email).ok();
        let device =
            address.as_ref().and_then(|address| self.keys.current().device_tokens.decode(device_token, address, as_of));
        let client = &call.fields().client;
        let attempt = self.attempts.sign_in(client, email, device.map(|device| device.id)).await?;
        let origin = JobOrigin { is_known: device.is_some(), ..JobOrigin::unknown(client) };
        // The user id of an unknown or invalid email address, so that the same calls are made.
        let dummy_user_id = id::v7_at(as_of);
        let account = match &address {
            Some(email) => self.upstreams.account_by_email(call, email).await?,
            None => self.upstreams.account_by_id(call, dummy_user_id).await?,
        };
        let user_id = account.as_ref().map_or(dummy_user_id, |account| account.user_id);
        if account.is_some() {
            call::record_user(user_id);
        }
        let credential = self.store.credential(user_id).await?;

        // Polled first, so that the call is always made. `try_join!` cancels it when the password is wrong.
        let claims = async { Ok(self.property_claims.fetch(call, user_id).await) };
        let verified = tokio::try_join!(claims, self.verify_password(call, &password, credential.as_ref(), origin));
        let is_new_device = is_new(device, user_id, credential.as_ref());
        let refused = |error: Error| {
            if let Some(outcome) = Outcome::of(&error).filter(|_| user_id != dummy_user_id) {
                self.history.failed(call, user_id, sign_in_history::Method::Password, outcome, is_new_device);
            }
            error
        };
        let (claims, verification) = verified.map_err(refused)?;
        let (Some(email), Some(account), Some(credential)) = (address, account, credential) else {
            return Err(Error::InvalidCredentials);
        };
        attempt.succeeded().await;
        self.may_sign_in(&account, &credential).map_err(refused)?;
        let properties = self.property_claims.or_empty(call, claims);
        self.confirm(&credential).await;

        let device = device.filter(|_| !is_new_device);
        let trust = self.trusted_devices.find(&credential, device).await?;
        let has_factor = credential.has_second_factor();
        let required_at =
            if has_factor { None } else { self.requirement.due_at(user_id, &account.roles, as_of).await? };
        let enrols = required_at.is_some_and(|required_at| required_at <= as_of);
        if enrols || has_factor && trust.is_none() {
            let mut challenge = self.challenge(&credential, &email, device).await?;
            if challenge.is_none() {
                let changed = self.verify_again(call, &password, user_id, origin).await?;
                challenge = self.challenge(&changed, &email, device).await?;
            }
            self.upgrade_hash(credential, password, verification);
            return challenge.map(FirstStep::Challenged).ok_or(Error::InvalidCredentials);
        }

        let session = self.upstreams.start_session(call, user_id, &[Method::Password]).await?;
        let (address, id) = (email.as_str(), session.session_id);
        // A password that was changed after it was verified does not sign in, nor one without a second factor that was added, or without the
        // trust in its device: its session may have started after all others were ended.
        if !self.history.succeeded(call, &credential, address, id, is_new_device, trust).await? {
            let changed = self.verify_again(call, &password, user_id, origin).await?;
            let trust = self.trusted_devices.find(&changed, device).await?;
            if changed.has_second_factor() && trust.is_none() {
                let challenge = self.challenge(&changed, &email, device).await?;
                return challenge.map(FirstStep::Challenged).ok_or(Error::InvalidCredentials);
            }
            // Whether one is needed was decided for an account that had one.
            let lost_factor = has_factor && !changed.has_second_factor();
            if lost_factor || !self.history.succeeded(call, &changed, address, id, is_new_device, trust).await? {
                return Err(Error::InvalidCredentials);
            }
        }
        self.upgrade_hash(credential, password, verification);
        let tokens = self.issuer.issue(session, account, properties, as_of).await?;
        let device = device.map_or_else(|| id::v7_at(as_of), |device| device.id);
        let device_token = self.keys.current().device_tokens.encode(&email, user_id, device, as_of);
        Ok(FirstStep::SignedIn(SignedIn {
            tokens,
            device_token,
            trusted_until: None,
            second_factor_required_at: required_at,
        }))
    }

    /// Whether an account whose password was right may sign in. After the password, so that nobody else learns why not.
    fn may_sign_in(&self, account: &AccountClaims, credential: &Credential) -> Result<(), Error> {
        if account.is_disabled {
            return Err(Error::AccountDisabled);
        }
        if credential.reset_required_at.is_some() {
            return Err(Error::PasswordResetRequired);
        }
        if self.requires_verified_email && !account.email_verified {
            return Err(Error::EmailNotVerified);
        }
        Ok(())
    }

    /// Always computes exactly one hash, of the password form that the stored hash has.
    async fn verify_password(
        &self,
        call: &Call,
        password: &TypedPassword,
        credential: Option<&Credential>,
        origin: JobOrigin,
    ) -> Result<Verification, Error> {
        let (hash, form) = credential.map_or((&self.dummy_hash, PasswordForm::Opaque), |credential| {
            (&credential.password_hash, credential.form)
        });
        let password = password.in_form(form).clone();
        let verification = self.hashing.verify(password, hash.clone(), origin, call.fields().deadline).await?;
        if verification.is_match() { Ok(verification) } else { Err(Error::InvalidCredentials) }
    }

    /// Verifies the password against what is stored now: its hash may have been replaced by another one of the same password. Nobody gets
    /// the tokens of a session whose password is another one.
    async fn verify_again(
        &self,
        call: &Call,
        password: &TypedPassword,
        user_id: Uuid,
        origin: JobOrigin,
    ) -> Result<Credential, Error> {
        let stored = self.store.credential(user_id).await?;
        if stored.as_ref().is_some_and(|stored| stored.reset_required_at.is_some()) {
            return Err(Error::PasswordResetRequired);
        }
        self.verify_password(call, password, stored.as_ref(), origin).await?;
        stored.ok_or(Error::InvalidCredentials)
    }

    /// Confirms a pending credential, since its account exists: the registration was interrupted.
    async fn confirm(&self, credential: &Credential) {
        let Credential { user_id, pending_since, .. } = credential;
        if pending_since.is_some()
            && let Err(error) = confirm(&self.store, *user_id, self.clock.now()).await
        {
            debug!(%user_id, cause = %Chain(&error), "credential not confirmed");
        }
    }

    /// Replaces a hash of another cost or of the raw form, in the background and only on an idle hashing thread. If none
    /// is idle, a later sign-in does it.
    fn upgrade_hash(&self, credential: Credential, password: TypedPassword, verification: Verification) {
        if verification == Verification::MatchOfBeginning
            || (verification != Verification::MatchNeedsRehash && credential.form == PasswordForm::Opaque)
        {
            return;
        }
        let (hashing, store, now) = (Arc::clone(&self.hashing), self.store.clone(), self.clock.now());
        tokio::spawn(async move {
            let Credential { user_id, password_hash: old, .. } = credential;
            let form = PasswordForm::Opaque;
            // For a normalized password with a current hash, only the form is updated.
            let new = if verification == Verification::Match && password.is_normalized() {
                old.clone()
            } else {
                match hashing.hash_if_idle(password.in_form(form).clone()).await {
                    Ok(Some(new)) => new,
                    Ok(None) | Err(HashingError::Stopped) => return,
                    Err(error) => return debug!(%user_id, %error, "password hash not upgraded"),
                }
            };
            match store.replace_password_hash(user_id, &old, &new, form, now).await {
                Ok(true) => info!(%user_id, "password hash upgraded"),
                Ok(false) => {}
                Err(error) => debug!(%user_id, cause = %Chain(&error), "password hash not upgraded"),
            }
        });
    }
}

/// Whether a device has not signed in to the account before, or only before its owner took the account back or added a second factor: who
/// knows the password could have collected device tokens before.
fn is_new(device: Option<KnownDevice>, user_id: Uuid, credential: Option<&Credential>) -> bool {
    let since = credential.and_then(|credential| credential.recovered_at.max(credential.second_factor_since));
    device.is_none_or(|device| !device.is_of(user_id) || since.is_some_and(|since| device.issued_at <= since))
}
