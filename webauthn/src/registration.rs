//! Registering a new credential (section 7.1).

use crate::{
    attestation::Attestation,
    authenticator_data::AuthenticatorData,
    client_data::{self, CREATE},
    failure::Failure,
    relying_party::RelyingParty,
    response::RegistrationResponse,
};

/// A credential that was verified, for a caller to store. Its id has to be new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub id: Vec<u8>,
    /// Its public key, as COSE has it.
    pub public_key: Vec<u8>,
    /// Its signature counter; 0 if the authenticator has none.
    pub sign_count: u32,
    /// Whether it can be copied to other devices of the user.
    pub is_backup_eligible: bool,
    /// Whether it has been.
    pub is_backed_up: bool,
    /// The make of the authenticator, as it states it; often zero.
    pub aaguid: [u8; 16],
    /// How browsers reach the authenticator, such as `internal` or `usb`.
    pub transports: Vec<String>,
}

impl RegistrationResponse {
    /// Verifies a new credential. `is_expected` says whether a challenge is one of this registration.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn verify(
        self,
        relying_party: &RelyingParty,
        is_expected: impl FnOnce(&str) -> bool,
    ) -> Result<Registered, Failure> {
        let client_data_hash = client_data::verify(&self.client_data, CREATE, relying_party, is_expected)?;
        let attestation = Attestation::read(&self.attestation_object)?;
        let data = AuthenticatorData::verify(attestation.authenticator_data, relying_party)?;
        let credential = data.credential.ok_or(Failure::Malformed("authenticatorData"))?;
        if credential.id != self.id {
            return Err(Failure::Malformed("id"));
        }
        attestation.verify(&credential.public_key, client_data_hash.as_ref())?;
        Ok(Registered {
            public_key: credential.encoded_key.to_vec(),
            sign_count: data.sign_count,
            is_backup_eligible: data.is_backup_eligible,
            is_backed_up: data.is_backed_up,
            aaguid: credential.aaguid,
            id: self.id,
            transports: self.transports,
        })
    }
}
