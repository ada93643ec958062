//! Users who need a second factor and have none add it while they sign in: the challenge of their sign-in stands for the session that they
//! do not get without it.

use drystone_mesh::{call, call::Call, clock::Timestamp, display_name::DisplayName};
use drystone_webauthn::RegistrationResponse;
use uuid::Uuid;

use super::{
    Added,
    addition::Author,
    management::{BegunTotp, Factors},
    passkey::Begun,
};
use crate::{
    challenge::{self, LIFETIME},
    error::Error,
    token::passkey_challenge::Ceremony,
};

impl Factors {
    /// Begins to add an authenticator app to the account of the sign-in with this challenge.
    ///
    /// # Errors
    /// [`Error::ChallengeInvalid`]; [`Error::SecondFactorRequired`] if the account has a second factor; [`Error::EmailNotVerified`].
    pub(crate) async fn begin_enrolment(
        &self,
        call: &Call,
        challenge_token: &str,
        display_name: DisplayName,
    ) -> Result<BegunTotp, Error> {
        let (author, _) = self.enrolling(call, challenge_token).await?;
        let contact = self.verified_contact(call, author.user_id).await?;
        self.begin_for(&contact, display_name).await
    }

    /// Adds the authenticator app that was begun. Its code is not used up: it completes the sign-in.
    ///
    /// # Errors
    /// As [`Self::begin_enrolment`]; [`Error::FactorNotFound`]; [`Error::CodeInvalid`].
    pub(crate) async fn confirm_enrolment(
        &self,
        call: &Call,
        challenge_token: &str,
        factor_id: Uuid,
        code: &str,
    ) -> Result<Added, Error> {
        let (author, _) = self.enrolling(call, challenge_token).await?;
        self.confirm_by(call, &author, factor_id, code).await
    }

    /// Begins to register a passkey of the account of the sign-in with this challenge.
    ///
    /// # Errors
    /// As [`Self::begin_enrolment`]; [`Error::PasskeysDisabled`].
    pub(crate) async fn begin_passkey_enrolment(&self, call: &Call, challenge_token: &str) -> Result<Begun, Error> {
        let (author, ceremony) = self.enrolling(call, challenge_token).await?;
        self.begin_passkey_by(call, &author, ceremony).await
    }

    /// Registers a passkey of the account of the sign-in with this challenge, which it then completes.
    ///
    /// # Errors
    /// As [`Self::begin_enrolment`]; [`Error::PasskeyInvalid`]; [`Error::PasskeyRegistered`].
    pub(crate) async fn enrol_passkey(
        &self,
        call: &Call,
        challenge_token: &str,
        response: RegistrationResponse,
        display_name: DisplayName,
    ) -> Result<Added, Error> {
        let (author, ceremony) = self.enrolling(call, challenge_token).await?;
        self.register_passkey_by(call, &author, ceremony, response, display_name).await
    }

    /// The user of the sign-in with this challenge, who has no second factor yet.
    async fn enrolling(&self, call: &Call, challenge_token: &str) -> Result<(Author, Ceremony), Error> {
        let (hash, now) = (challenge::hash(challenge_token), self.clock.now());
        let challenge = self.store.challenge(hash, now).await?.ok_or(Error::ChallengeInvalid)?;
        call::record_user(challenge.user_id);
        // Who has one completes the sign-in by it.
        if self.store.has_factor(challenge.user_id).await? {
            return Err(Error::SecondFactorRequired);
        }
        // It may have been disabled since.
        let contact = self.upstreams.contact_by_id(call, challenge.user_id).await?;
        if !contact.is_some_and(|contact| contact.is_active) {
            return Err(Error::ChallengeInvalid);
        }
        let auth_time: Timestamp = challenge.expires_at - LIFETIME;
        let author = Author { user_id: challenge.user_id, session_id: None, has_second_factor: false, auth_time };
        Ok((author, Ceremony::Enrolment(hash)))
    }
}
