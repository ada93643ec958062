//! Users register passkeys.

use drystone_mesh::{call::Call, display_name::DisplayName, id};
use drystone_webauthn::RegistrationResponse;
use uuid::Uuid;

use super::{
    Factor, FactorKind, MAX_FACTORS,
    addition::{Added, Author},
    management::Factors,
    passkey::{Begun, StoredPasskey},
    totp::Secret,
};
use crate::{error::Error, store::factor_place, token::passkey_challenge::Ceremony};

impl Factors {
    /// Begins to register a passkey of the user of this call.
    ///
    /// # Errors
    /// [`Error::PasskeysDisabled`]; [`Error::TooManyFactors`]; [`Error::EmailNotVerified`]; [`Error::SecondFactorRequired`].
    pub(crate) async fn begin_passkey(&self, call: &Call) -> Result<Begun, Error> {
        self.check.passkeys.relying_party()?;
        let author = self.author(call).await?;
        let (user_id, session_id) = (author.user_id, call.principal()?.session_id);
        self.begin_passkey_by(call, &author, Ceremony::Registration { user_id, session_id }).await
    }

    /// Begins to register a passkey of this user.
    pub(super) async fn begin_passkey_by(
        &self,
        call: &Call,
        author: &Author,
        ceremony: Ceremony,
    ) -> Result<Begun, Error> {
        let user_id = author.user_id;
        let contact = self.verified_contact(call, user_id).await?;
        if self.store.confirmed_factors(user_id).await?.len() >= MAX_FACTORS as usize {
            return Err(Error::TooManyFactors);
        }
        self.check.passkeys.begin_registration(&contact, ceremony).await
    }

    /// Registers a passkey of the user of this call. With the first factor the other sessions end. This session is not one with it: without
    /// attestation, a registration proves nothing of the key.
    ///
    /// # Errors
    /// [`Error::PasskeyInvalid`]; [`Error::PasskeyRegistered`]; as [`Self::begin_passkey`].
    pub(crate) async fn register_passkey(
        &self,
        call: &Call,
        response: RegistrationResponse,
        display_name: DisplayName,
    ) -> Result<Added, Error> {
        let author = self.author(call).await?;
        let ceremony = Ceremony::Registration { user_id: author.user_id, session_id: call.principal()?.session_id };
        self.register_passkey_by(call, &author, ceremony, response, display_name).await
    }

    /// Registers a passkey of this user.
    pub(super) async fn register_passkey_by(
        &self,
        call: &Call,
        author: &Author,
        ceremony: Ceremony,
        response: RegistrationResponse,
        display_name: DisplayName,
    ) -> Result<Added, Error> {
        let (user_id, now) = (author.user_id, self.clock.now());
        let (registered, challenge) = self.check.passkeys.verify_new(response, ceremony)?;
        let contact = self.verified_contact(call, user_id).await?;
        let passkey = StoredPasskey {
            factor: Factor {
                id: id::v7_at(now),
                user_id,
                kind: FactorKind::Passkey,
                display_name: display_name.into_string(),
                created_at: now,
                last_used_at: None,
            },
            credential_id: registered.id,
            public_key: registered.public_key,
            sign_count: registered.sign_count,
            is_backup_eligible: registered.is_backup_eligible,
            is_backed_up: registered.is_backed_up,
            aaguid: Uuid::from_bytes(registered.aaguid),
            transports: registered.transports,
        };
        let addition = self.addition(call, author, &contact, now).await?;
        let nothing = Secret::generate().ok_or(Error::Random)?;
        let place = factor_place(&passkey.factor.id);
        let secret = self.check.sealer.seal(place, nothing.expose()).await.map_err(Error::Seal)?;
        let (hashes, messages, auth_time) = (&addition.hashes, &addition.messages, author.auth_time);
        if !self.store.add_passkey(&passkey, &secret, challenge, auth_time, hashes, messages).await? {
            return Err(Error::FactorsChanged);
        }
        Ok(self.added(addition, passkey.factor).await)
    }
}
