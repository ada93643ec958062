//! Verifying an authentication assertion (section 7.2).

use crate::{
    authenticator_data::AuthenticatorData,
    client_data::{self, GET},
    failure::Failure,
    public_key::PublicKey,
    relying_party::RelyingParty,
    response::AuthenticationResponse,
};

/// What is stored of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCredential<'a> {
    /// Its public key, as COSE has it.
    pub public_key: &'a [u8],
    /// Its user, as the options of its registration had it.
    pub user_handle: &'a [u8],
    /// Its signature counter.
    pub sign_count: u32,
    /// Whether it can be copied to other devices of the user.
    pub is_backup_eligible: bool,
}

/// What changes about a credential that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authenticated {
    /// Its signature counter. Of two uses at once, one has to be refused unless it is 0.
    pub sign_count: u32,
    /// Whether it has been copied to other devices of the user.
    pub is_backed_up: bool,
}

impl AuthenticationResponse {
    /// Verifies a proof by a credential. `is_expected` says whether a challenge is one of this authentication.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn verify(
        &self,
        relying_party: &RelyingParty,
        stored: StoredCredential<'_>,
        is_expected: impl FnOnce(&str) -> bool,
    ) -> Result<Authenticated, Failure> {
        if self.user_handle.as_deref().is_some_and(|handle| handle != stored.user_handle) {
            return Err(Failure::UserHandle);
        }
        let client_data_hash = client_data::verify(&self.client_data, GET, relying_party, is_expected)?;
        let data = AuthenticatorData::verify(&self.authenticator_data, relying_party)?;
        if data.credential.is_some() {
            return Err(Failure::Malformed("authenticatorData"));
        }
        if data.is_backup_eligible != stored.is_backup_eligible {
            return Err(Failure::BackupFlags);
        }
        let (public_key, _) = PublicKey::read(stored.public_key).ok_or(Failure::PublicKey)?;
        let signed = [&self.authenticator_data, client_data_hash.as_ref()].concat();
        if !public_key.verifies(&signed, &self.signature) {
            return Err(Failure::Signature);
        }
        // After the signature: nobody else makes a passkey look copied.
        if (data.sign_count, stored.sign_count) != (0, 0) && data.sign_count <= stored.sign_count {
            return Err(Failure::Counter);
        }
        Ok(Authenticated { sign_count: data.sign_count, is_backed_up: data.is_backed_up })
    }
}
