//! Passkeys: what is asked of browsers, and the check of what they send.

use std::sync::Arc;

use drystone_mesh::clock::{Clock, Timestamp};
use drystone_webauthn::{
    AuthenticationResponse, CreationOptions, CredentialDescriptor, Registered, RegistrationResponse, RelyingParty,
    RequestOptions, StoredCredential, User,
};
use serde_json::Value;
use uuid::Uuid;

use super::{Factor, FactorKind};
use crate::{
    authentication::Method,
    error::Error,
    metrics::FactorMetrics,
    store::AuthStore,
    token::{
        key_ring::KeyRing,
        passkey_challenge::{Ceremony, LIFETIME, PasskeyChallenge},
    },
    upstreams::Contact,
};

/// A passkey of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPasskey {
    /// Its factor.
    pub factor: Factor,
    /// The id of its credential.
    pub credential_id: Vec<u8>,
    /// Its public key, as COSE has it.
    pub public_key: Vec<u8>,
    /// Its signature counter; 0 if it has none.
    pub sign_count: u32,
    /// Whether it can be copied to other devices of the user.
    pub is_backup_eligible: bool,
    /// Whether it has been.
    pub is_backed_up: bool,
    /// The make of its authenticator, as that states it.
    pub aaguid: Uuid,
    /// How browsers reach its authenticator.
    pub transports: Vec<String>,
}

/// What a proof by a passkey uses up: its challenge serves once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasskeyUse {
    /// The factor.
    pub factor_id: Uuid,
    /// The user.
    pub user_id: Uuid,
    /// The counter from now on.
    pub sign_count: u32,
    /// Whether it has been copied to other devices of the user.
    pub is_backed_up: bool,
    /// The method of authentication.
    pub method: Method,
    /// The challenge.
    pub challenge: PasskeyChallenge,
}

/// What is asked of a browser.
pub(crate) struct Begun {
    /// As the browser reads it.
    pub(crate) options: Value,
    /// Until when it serves.
    pub(crate) expires_at: Timestamp,
}

/// Asks for passkeys, and checks them.
#[derive(Clone)]
pub(crate) struct Passkeys {
    /// `None`: there are no passkeys.
    pub(crate) relying_party: Option<Arc<RelyingParty>>,
    /// How users know the relying party.
    pub(crate) name: String,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) metrics: FactorMetrics,
    pub(crate) store: AuthStore,
    pub(crate) clock: Clock,
}

impl Passkeys {
    /// The relying party.
    ///
    /// # Errors
    /// [`Error::PasskeysDisabled`].
    pub(crate) fn relying_party(&self) -> Result<&RelyingParty, Error> {
        self.relying_party.as_deref().ok_or(Error::PasskeysDisabled)
    }

    /// What is asked of a browser to register a passkey of this user.
    ///
    /// # Errors
    /// [`Error::PasskeysDisabled`].
    pub(crate) async fn begin_registration(&self, contact: &Contact, ceremony: Ceremony) -> Result<Begun, Error> {
        let relying_party = self.relying_party()?;
        let existing = self.store.passkeys_of(contact.user_id).await?;
        let (challenge, expires_at) = self.challenge(ceremony)?;
        let user =
            User { handle: contact.user_id.as_bytes(), name: &contact.email, display_name: &contact.display_name };
        let name = &self.name;
        let options = CreationOptions {
            relying_party,
            name,
            user,
            challenge: &challenge,
            timeout: LIFETIME,
            existing: &existing,
        };
        Ok(Begun { options: options.to_json(), expires_at })
    }

    /// What is asked of a browser to use one of these passkeys; of any, if there are none.
    ///
    /// # Errors
    /// [`Error::PasskeysDisabled`].
    pub(crate) fn begin(&self, ceremony: Ceremony, allowed: &[CredentialDescriptor]) -> Result<Begun, Error> {
        let relying_party = self.relying_party()?;
        let (challenge, expires_at) = self.challenge(ceremony)?;
        let options = RequestOptions { relying_party, challenge: &challenge, timeout: LIFETIME, allowed };
        Ok(Begun { options: options.to_json(), expires_at })
    }

    /// Verifies a new passkey.
    ///
    /// # Errors
    /// [`Error::PasskeyInvalid`]; [`Error::PasskeysDisabled`].
    pub(crate) fn verify_new(
        &self,
        response: RegistrationResponse,
        ceremony: Ceremony,
    ) -> Result<(Registered, PasskeyChallenge), Error> {
        let mut challenge = None;
        let registered = response.verify(self.relying_party()?, |text| {
            challenge = self.read_challenge(text, ceremony);
            challenge.is_some()
        })?;
        Ok((registered, challenge.ok_or(drystone_webauthn::Failure::Challenge)?))
    }

    /// What a proof by a passkey uses up, if it is right: of this user, or of any. Uses up nothing.
    ///
    /// # Errors
    /// [`Error::PasskeyUnknown`]; [`Error::PasskeyInvalid`]; [`Error::PasskeysDisabled`].
    pub(crate) async fn find(
        &self,
        response: &AuthenticationResponse,
        ceremony: Ceremony,
        user_id: Option<Uuid>,
    ) -> Result<PasskeyUse, Error> {
        let found = self.try_find(response, ceremony, user_id).await;
        match &found {
            Ok(_) => self.metrics.proof(FactorKind::Passkey, true),
            Err(error) if error.is_refused_proof() => {
                self.metrics.proof(FactorKind::Passkey, false);
            }
            // It says nothing about the passkey.
            Err(_) => {}
        }
        found
    }

    async fn try_find(
        &self,
        response: &AuthenticationResponse,
        ceremony: Ceremony,
        user_id: Option<Uuid>,
    ) -> Result<PasskeyUse, Error> {
        let relying_party = self.relying_party()?;
        let stored = self.store.passkey(response.credential_id()).await?;
        let stored = stored.ok_or(Error::PasskeyUnknown)?;
        // Section 7.2 asks for the user handle where the passkey says who the user is.
        let is_of_user = match user_id {
            Some(user_id) => stored.factor.user_id == user_id,
            None => response.user_handle().is_some(),
        };
        if !is_of_user {
            return Err(drystone_webauthn::Failure::UserHandle.into());
        }
        let mut challenge = None;
        let credential = StoredCredential {
            public_key: &stored.public_key,
            user_handle: stored.factor.user_id.as_bytes(),
            sign_count: stored.sign_count,
            is_backup_eligible: stored.is_backup_eligible,
        };
        let verified = response.verify(relying_party, credential, |text| {
            challenge = self.read_challenge(text, ceremony);
            challenge.is_some()
        });
        if let Err(drystone_webauthn::Failure::Counter) = verified {
            tracing::warn!(user_id = %stored.factor.user_id, factor_id = %stored.factor.id, "the signature counter of a passkey did not increase: it may have been copied");
        }
        let verified = verified?;
        let challenge = challenge.ok_or(drystone_webauthn::Failure::Challenge)?;
        if self.store.is_passkey_challenge_used(challenge).await? {
            return Err(Error::PasskeyChallengeUsed);
        }
        Ok(PasskeyUse {
            factor_id: stored.factor.id,
            user_id: stored.factor.user_id,
            sign_count: verified.sign_count,
            is_backed_up: verified.is_backed_up,
            method: if stored.is_backup_eligible { Method::SoftwareKey } else { Method::HardwareKey },
            challenge,
        })
    }

    fn challenge(&self, ceremony: Ceremony) -> Result<(String, Timestamp), Error> {
        self.keys.current().passkey_challenges.issue(ceremony, self.clock.now()).ok_or(Error::Random)
    }

    fn read_challenge(&self, text: &str, ceremony: Ceremony) -> Option<PasskeyChallenge> {
        self.keys.current().passkey_challenges.read(text, ceremony, self.clock.now())
    }
}
