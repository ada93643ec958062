//! What the authenticator says (section 6.1).

use minicbor::Decoder;

use crate::{cbor, failure::Failure, public_key::PublicKey, relying_party::RelyingParty, response::MAX_CREDENTIAL_ID};

const USER_PRESENT: u8 = 1;
const USER_VERIFIED: u8 = 1 << 2;
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKED_UP: u8 = 1 << 4;
const HAS_CREDENTIAL: u8 = 1 << 6;
const HAS_EXTENSIONS: u8 = 1 << 7;

const MALFORMED: Failure = Failure::Malformed("authenticatorData");

/// What the authenticator says, verified as far as both ceremonies do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AuthenticatorData<'a> {
    pub(crate) sign_count: u32,
    pub(crate) is_backup_eligible: bool,
    pub(crate) is_backed_up: bool,
    /// The new credential, in a registration.
    pub(crate) credential: Option<AttestedCredential<'a>>,
}

/// A new credential.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AttestedCredential<'a> {
    pub(crate) aaguid: [u8; 16],
    pub(crate) id: &'a [u8],
    /// The public key, as COSE has it.
    pub(crate) encoded_key: &'a [u8],
    pub(crate) public_key: PublicKey,
}

impl<'a> AuthenticatorData<'a> {
    /// Reads what the authenticator says, and verifies that it is for the relying party, that the user was present and verified, and that
    /// the backup flags can be.
    pub(crate) fn verify(bytes: &'a [u8], relying_party: &RelyingParty) -> Result<Self, Failure> {
        let (id_hash, rest) = bytes.split_first_chunk::<32>().ok_or(MALFORMED)?;
        let (&[flags], rest) = rest.split_first_chunk::<1>().ok_or(MALFORMED)?;
        let (sign_count, mut rest) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
        let has = |flag: u8| flags & flag != 0;

        let credential = if has(HAS_CREDENTIAL) {
            let (credential, after) = AttestedCredential::read(rest)?;
            rest = after;
            Some(credential)
        } else {
            None
        };
        if has(HAS_EXTENSIONS) {
            let mut decoder = Decoder::new(rest);
            let is_map = decoder.datatype().is_ok_and(|of| of == minicbor::data::Type::Map);
            cbor::skip(&mut decoder).filter(|()| is_map).ok_or(MALFORMED)?;
            rest = rest.get(decoder.position()..).ok_or(MALFORMED)?;
        }
        if !rest.is_empty() {
            return Err(MALFORMED);
        }

        if id_hash != relying_party.id_hash() {
            return Err(Failure::RelyingPartyId);
        }
        if !has(USER_PRESENT) {
            return Err(Failure::UserPresent);
        }
        if !has(USER_VERIFIED) {
            return Err(Failure::UserVerified);
        }
        if has(BACKED_UP) && !has(BACKUP_ELIGIBLE) {
            return Err(Failure::BackupFlags);
        }
        Ok(Self {
            sign_count: u32::from_be_bytes(*sign_count),
            is_backup_eligible: has(BACKUP_ELIGIBLE),
            is_backed_up: has(BACKED_UP),
            credential,
        })
    }
}

impl<'a> AttestedCredential<'a> {
    /// Reads a credential (section 6.5.1); returns what follows it.
    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Failure> {
        let (aaguid, rest) = bytes.split_first_chunk::<16>().ok_or(MALFORMED)?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(MALFORMED)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 || length > MAX_CREDENTIAL_ID {
            return Err(MALFORMED);
        }
        let (id, rest) = rest.split_at_checked(length).ok_or(MALFORMED)?;
        let (public_key, length) = PublicKey::read(rest).ok_or(Failure::PublicKey)?;
        let (encoded_key, rest) = rest.split_at_checked(length).ok_or(MALFORMED)?;
        Ok((Self { aaguid: *aaguid, id, encoded_key, public_key }, rest))
    }
}
