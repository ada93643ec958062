//! The second step of a sign-in, for users with a second factor.

use drystone_mesh::{call, call::Call, clock::Timestamp, email::Email, id};
use uuid::Uuid;

use super::{SignIn, SignedIn};
use crate::{
    authentication::Method,
    challenge::{self, Challenge, LIFETIME},
    credential::Credential,
    error::Error,
    factor::Code,
    sign_in_history::Outcome,
    token::device_token::KnownDevice,
};

/// What a client completes a sign-in with.
pub struct NewChallenge {
    /// The token, for the client alone.
    pub token: String,
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
        Ok(is_stored.then(|| NewChallenge { token: token.as_str().to_owned(), expires_at: challenge.expires_at }))
    }

    /// Completes a sign-in by a second factor.
    ///
    /// # Errors
    /// [`Error::ChallengeInvalid`]; [`Error::CodeInvalid`]; [`Error::TooManyTries`]; [`Error::AccountDisabled`],
    /// [`Error::PasswordResetRequired`]; errors of the upstreams, the hashing pool, the master key and the store.
    pub async fn complete(&self, call: &Call, token: &str, code: &Code) -> Result<SignedIn, Error> {
        let completed = self.try_complete(call, token, code).await;
        match &completed {
            Ok(_) => self.metrics.record(true),
            Err(Error::CodeInvalid) => self.metrics.record(false),
            // It says nothing about who signs in.
            Err(_) => {}
        }
        completed
    }

    async fn try_complete(&self, call: &Call, token: &str, code: &Code) -> Result<SignedIn, Error> {
        let as_of = self.clock.now();
        let challenge = self.store.challenge(challenge::hash(token), as_of).await?.ok_or(Error::ChallengeInvalid)?;
        let user_id = challenge.user_id;
        call::record_user(user_id);
        self.store.count_try(user_id, challenge.device, as_of).await?;
        self.store.try_challenge(&challenge).await?;
        let completed = self.complete_tried(call, &challenge, code, as_of).await;
        if let Err(error) = &completed
            && !matches!(error, Error::CodeInvalid | Error::ChallengeInvalid)
        {
            // The code was not refused: it can be tried again.
            self.store.uncount_try(user_id, challenge.device, self.clock.now()).await?;
            self.store.untry_challenge(&challenge).await?;
        }
        completed
    }

    async fn complete_tried(
        &self,
        call: &Call,
        challenge: &Challenge,
        code: &Code,
        as_of: Timestamp,
    ) -> Result<SignedIn, Error> {
        let user_id = challenge.user_id;
        let refused = |error: Error| {
            if let Some(outcome) = Outcome::of(&error) {
                self.history.failed(call, user_id, outcome, challenge.is_new_device());
            }
            error
        };
        let used = self.factors.find(call, user_id, code).await.map_err(refused)?;
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
        let methods = [Method::Password, Method::OneTimePassword];
        let session = self.upstreams.start_session(call, user_id, &methods).await?;
        self.history.completed(call, &credential, challenge, &used, session.session_id).await.map_err(refused)?;
        let tokens = self.issuer.issue(session, account, properties, as_of)?;
        let device = if challenge.device.is_nil() { id::v7_at(as_of) } else { challenge.device };
        Ok(SignedIn { tokens, device_token: self.device_token(&challenge.email, user_id, device, as_of) })
    }

    fn device_token(&self, email: &str, user_id: Uuid, device: Uuid, now: Timestamp) -> String {
        // It was parsed when the challenge was made.
        let Ok(email) = Email::parse(email) else { return String::new() };
        self.keys.current().device_tokens.encode(&email, user_id, device, now)
    }
}
