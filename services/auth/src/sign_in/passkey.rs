//! Sign-in with a passkey alone: it is two factors.

use drystone_mesh::{call, call::Call, email::Email, id};
use drystone_webauthn::AuthenticationResponse;

use super::{SignIn, SignedIn, is_new};
use crate::{
    challenge,
    error::Error,
    factor::passkey::Begun,
    sign_in_history::{Method, Outcome},
    token::passkey_challenge::Ceremony,
};

impl SignIn {
    /// Begins a sign-in with a passkey: without a password, or as the second factor of the sign-in with this challenge, unless it is empty.
    ///
    /// # Errors
    /// [`Error::PasskeysDisabled`]; [`Error::ChallengeInvalid`].
    pub(crate) async fn begin_passkey(&self, challenge_token: &str) -> Result<Begun, Error> {
        let passkeys = &self.factors.passkeys;
        if challenge_token.is_empty() {
            // Says nothing about who has an account.
            return passkeys.begin(Ceremony::SignIn, &[]);
        }
        let hash = challenge::hash(challenge_token);
        let challenge = self.store.challenge(hash, self.clock.now()).await?.ok_or(Error::ChallengeInvalid)?;
        let allowed = self.store.passkeys_of(challenge.user_id).await?;
        if allowed.is_empty() {
            return Err(Error::NoSecondFactor);
        }
        passkeys.begin(Ceremony::SecondFactor(hash), &allowed)
    }

    /// Verifies a passkey, starts a session and issues its first tokens. `device_token` is as for [`Self::sign_in`].
    ///
    /// # Errors
    /// [`Error::PasskeyUnknown`], [`Error::PasskeyInvalid`]; [`Error::AccountDisabled`], [`Error::PasswordResetRequired`],
    /// [`Error::EmailNotVerified`]; errors of the upstreams and the store.
    pub(crate) async fn sign_in_with_passkey(
        &self,
        call: &Call,
        response: &AuthenticationResponse,
        device_token: &str,
    ) -> Result<SignedIn, Error> {
        let signed_in = self.try_sign_in_with_passkey(call, response, device_token).await;
        match &signed_in {
            Ok(_) => self.metrics.record(true),
            Err(error) if error.is_refused_proof() => {
                self.metrics.record(false);
            }
            // It says nothing about who signs in.
            Err(_) => {}
        }
        signed_in
    }

    async fn try_sign_in_with_passkey(
        &self,
        call: &Call,
        response: &AuthenticationResponse,
        device_token: &str,
    ) -> Result<SignedIn, Error> {
        let as_of = self.clock.now();
        let used = self.factors.passkeys.find(response, Ceremony::SignIn, None).await?;
        let user_id = used.user_id;
        call::record_user(user_id);
        // Only who has the passkey uses this up.
        self.attempts.passkey(used.factor_id).await?;
        let claims = async { Ok(self.property_claims.fetch(call, user_id).await) };
        let credential = async { Ok(self.store.credential(user_id).await?) };
        let (claims, account, contact, credential) = tokio::try_join!(
            claims,
            self.upstreams.account_by_id(call, user_id),
            self.upstreams.contact_by_id(call, user_id),
            credential
        )?;
        let (Some(mut account), Some(contact), Some(credential)) = (account, contact, credential) else {
            return Err(Error::PasskeyUnknown);
        };
        account.email_verified = contact.email_verified;
        let email = Email::parse(&contact.email).map_err(|_| Error::InvalidResponse("user", "a valid `email`"))?;
        let device = self.keys.current().device_tokens.decode(device_token, &email, as_of);
        let is_new_device = is_new(device, user_id, Some(&credential));
        if let Err(error) = self.may_sign_in(&account, &credential) {
            if let Some(outcome) = Outcome::of(&error) {
                self.history.failed(call, user_id, Method::Passkey, outcome, is_new_device);
            }
            return Err(error);
        }
        let properties = self.property_claims.or_empty(call, claims);
        let session = self.upstreams.start_session(call, user_id, &[used.method]).await?;
        let session_id = session.session_id;
        self.history.succeeded_with_passkey(call, &used, email.as_str(), session_id, is_new_device).await?;
        let tokens = self.issuer.issue(session, account, properties, as_of).await?;
        let device = device.filter(|_| !is_new_device).map_or_else(|| id::v7_at(as_of), |device| device.id);
        let device_token = self.keys.current().device_tokens.encode(&email, user_id, device, as_of);
        Ok(SignedIn { tokens, device_token, trusted_until: None, second_factor_required_at: None })
    }
}
