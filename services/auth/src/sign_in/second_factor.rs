//! The second step of a sign-in, for users with a second factor.

use drystone_mesh::{call, call::Call, clock::Timestamp, email::Email, id};
use uuid::Uuid;

use super::{SignIn, SignedIn};
use crate::{
    authentication::Method,
    challenge::{self, Challenge, LIFETIME},
    credential::Credential,
    error::Error,
    factor::{FactorKind, FactorProof},
    sign_in_history::{Completion, Outcome},
    token::{device_token::KnownDevice, passkey_challenge::Ceremony},
    trusted_device::NewTrust,
};

/// What a client completes a sign-in with.
pub struct NewChallenge {
    /// The token, for the client alone.
    pub token: String,
    /// The kinds of factors of which one completes the sign-in.
    pub factors: Vec<FactorKind>,
    /// Whether the user has none, and has to add one first.
    pub enrols: bool,
    /// When it expires.
    pub expires_at: Timestamp,
}

impl SignIn {
    /// A challenge for a user whose password was right; `None` if it has been changed since.
    pub(super) async fn challenge(
        &self,
        credential: &Credential,
        email: &Email,
        device: Option<KnownDevice>,
    ) -> Result<Option<NewChallenge>, Error> {
        let token = challenge::new_token().ok_or(Error::Random)?;
        let challenge = Challenge {
            token_hash: challenge::hash(&token),
            user_id: credential.user_id,
            email: email.as_str().to_owned(),
            device: device.map(|device| device.id).unwrap_or_default(),
            expires_at: self.clock.now() + LIFETIME,
        };
        let is_stored = self.store.insert_challenge(&challenge, credential).await?;
        if !is_stored {
            return Ok(None);
        }
        let has_passkeys = self.factors.passkeys.relying_party().is_ok();
        let mut factors = self.store.factor_kinds(credential.user_id).await?;
        self.factors.metrics.challenge(false);
        let (enrols, token) = (factors.is_empty(), token.as_str().to_owned());
        factors.retain(|kind| has_passkeys || *kind != FactorKind::Passkey);
        Ok(Some(NewChallenge { token, factors, enrols, expires_at: challenge.expires_at }))
    }

    /// Completes a sign-in by a second factor. With `remember_device`, later ones on the device need none for a while, if the service is
    /// configured so: whichever factor it is, also a backup code.
    ///
    /// # Errors
    /// [`Error::ChallengeInvalid`]; [`Error::CodeInvalid`], [`Error::PasskeyInvalid`]; [`Error::TooManyTries`]; [`Error::AccountDisabled`],
    /// [`Error::PasswordResetRequired`]; errors of the upstreams, the hashing pool, the master key and the store.
    pub async fn complete(
        &self,
        call: &Call,
        token: &str,
        proof: &FactorProof,
        remember_device: bool,
    ) -> Result<SignedIn, Error> {
        let completed = self.try_complete(call, token, proof, remember_device).await;
        match &completed {
            Ok(_) => {
                self.metrics.record(true);
                self.factors.metrics.challenge(true);
            }
            Err(error) if error.is_refused_proof() => self.metrics.record(false),
            // It says nothing about who signs in.
            Err(_) => {}
        }
        completed
    }

    async fn try_complete(
        &self,
        call: &Call,
        token: &str,
        proof: &FactorProof,
        remember_device: bool,
    ) -> Result<SignedIn, Error> {
        let as_of = self.clock.now();
        let challenge = self.store.challenge(challenge::hash(token), as_of).await?.ok_or(Error::ChallengeInvalid)?;
        let user_id = challenge.user_id;
        call::record_user(user_id);
        let trust = if remember_device { self.trusted_devices.new_trust(as_of) } else { None };
        // Nobody guesses a passkey, so that only codes make others of the user wait: the owner gets in although others try.
        let is_code = !matches!(proof, FactorProof::Passkey(_));
        if is_code {
            self.store.count_try(user_id, challenge.device, as_of).await?;
        }
        self.store.try_challenge(&challenge).await?;
        let completed = self.complete_tried(call, &challenge, proof, trust, as_of).await;
        if let Err(error) = &completed
            && !error.is_refused_proof()
            && !matches!(error, Error::ChallengeInvalid)
        {
            // The proof was not refused: it can be tried again.
            if is_code {
                self.store.uncount_try(user_id, challenge.device, self.clock.now()).await?;
            }
            self.store.untry_challenge(&challenge).await?;
        }
        completed
    }

    async fn complete_tried(
        &self,
        call: &Call,
        challenge: &Challenge,
        proof: &FactorProof,
        trust: Option<NewTrust>,
        as_of: Timestamp,
    ) -> Result<SignedIn, Error> {
        let user_id = challenge.user_id;
        let refused = |error: Error| {
            if let Some(outcome) = Outcome::of(&error) {
                self.history.failed(call, user_id, proof.sign_in_method(), outcome, challenge.is_new_device());
            }
            error
        };
        let used = self
            .factors
            .find(call, user_id, proof, Ceremony::SecondFactor(challenge.token_hash))
            .await
            .map_err(refused)?;
        let account = self.upstreams.account_by_id(call, user_id).await?.ok_or(Error::ChallengeInvalid)?;
        let credential = self.store.credential(user_id).await?.ok_or(Error::ChallengeInvalid)?;
        if account.is_disabled {
            return Err(refused(Error::AccountDisabled));
        }
        if credential.reset_required_at.is_some() {
            return Err(refused(Error::PasswordResetRequired));
        }
        let claims = self.property_claims.fetch(call, user_id).await;
        let properties = self.property_claims.or_empty(call, claims);

        // Before the code is used up: it is not lost if the session service does not answer.
        let methods = [Method::Password, used.method()];
        let session = self.upstreams.start_session(call, user_id, &methods).await?;
        let completion = Completion {
            credential: &credential,
            challenge,
            factor: &used,
            method: proof.sign_in_method(),
            session_id: session.session_id,
            trust,
        };
        self.history.completed(call, completion).await.map_err(refused)?;
        let tokens = self.issuer.issue(session, account, properties, as_of).await?;
        let device = match trust {
            Some(trust) => trust.device,
            None if challenge.is_new_device() => id::v7_at(as_of),
            None => challenge.device,
        };
        let device_token = self.device_token(&challenge.email, user_id, device, as_of);
        let trusted_until = trust.map(|trust| trust.expires_at);
        Ok(SignedIn { tokens, device_token, trusted_until, second_factor_required_at: None })
    }

    fn device_token(&self, email: &str, user_id: Uuid, device: Uuid, now: Timestamp) -> String {
        // It was parsed when the challenge was made.
        let Ok(email) = Email::parse(email) else { return String::new() };
        self.keys.current().device_tokens.encode(&email, user_id, device, now)
    }
}
