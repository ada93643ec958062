//! Passkeys (Web Authentication) in software: the authenticator, and the browser in front of it.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{self, SystemRandom},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The flags of authenticator data: user present, user verified, with the data of the credential.
const UP: u8 = 0x01;
const UV: u8 = 0x04;
const AT: u8 = 0x40;

/// Zero: the authenticator does not state its make.
const AAGUID: [u8; 16] = [0; 16];

/// A passkey (ES256) of one user at one relying party.
#[derive(Debug)]
pub struct Passkey {
    key: EcdsaKeyPair,
    id: [u8; 16],
    user_handle: Vec<u8>,
    /// `None`: the authenticator has no signature counter.
    sign_count: Option<u32>,
}

impl Passkey {
    /// Creates a passkey for a `PublicKeyCredentialCreationOptionsJSON`, as a page of this origin would. Returns the text of the
    /// `RegistrationResponseJSON` as well.
    ///
    /// # Panics
    /// If the options lack something.
    #[must_use]
    pub fn create(origin: &str, options: &Value) -> (Self, String) {
        let mut id = [0; 16];
        rand::fill(&mut id).expect("the system has random numbers");
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key can be generated");
        let user_handle = URL_SAFE_NO_PAD.decode(text(&options["user"]["id"])).expect("the user handle is base64url");
        let passkey = Self { key, id, user_handle, sign_count: Some(0) };

        let data = authenticator_data(text(&options["rp"]["id"]), UP | UV | AT, 0, &passkey.attested_credential());
        let response = json!({
            "clientDataJSON": base64url(client_data("webauthn.create", origin, options)),
            "attestationObject": base64url(attestation_object(&data)),
            "transports": ["internal"],
        });
        let credential = passkey.credential(&response);
        (passkey, credential)
    }

    /// The same passkey on an authenticator without a signature counter, as those that synchronize passkeys between devices. To be
    /// called before the first [`Self::get`].
    #[must_use]
    pub fn without_counter(self) -> Self {
        Self { sign_count: None, ..self }
    }

    /// Uses the passkey for a `PublicKeyCredentialRequestOptionsJSON`, as a page of this origin would. Returns the text of the
    /// `AuthenticationResponseJSON`.
    ///
    /// # Panics
    /// If the options lack something.
    #[must_use]
    pub fn get(&mut self, origin: &str, options: &Value) -> String {
        self.sign_count = self.sign_count.map(|count| count + 1);
        let data = authenticator_data(text(&options["rpId"]), UP | UV, self.sign_count.unwrap_or_default(), &[]);
        let client_data = client_data("webauthn.get", origin, options);
        let signed = [data.as_slice(), digest(&SHA256, client_data.as_bytes()).as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).expect("the key signs");
        self.credential(&json!({
            "clientDataJSON": base64url(client_data),
            "authenticatorData": base64url(data),
            "signature": base64url(signature),
            "userHandle": base64url(&self.user_handle),
        }))
    }

    /// The id of the credential.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    fn credential(&self, response: &Value) -> String {
        let id = base64url(self.id);
        json!({
            "id": id,
            "rawId": id,
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": response,
        })
        .to_string()
    }

    /// The attested credential data (section 6.5.1).
    fn attested_credential(&self) -> Vec<u8> {
        // An uncompressed point: 4, then both coordinates.
        let point: &[u8] = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        // In CBOR: {1: 2, 3: -7, -1: 1, -2: x, -3: y}, which is EC2, ES256, P-256 and the coordinates (RFC 9053).
        let key = [&[0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 32][..], x, &[0x22, 0x58, 32], y].concat();
        let length = u16::try_from(self.id.len()).expect("the id is short").to_be_bytes();
        [&AAGUID[..], &length, &self.id, &key].concat()
    }
}

/// What the browser says of the ceremony (section 5.8.1).
fn client_data(ceremony: &str, origin: &str, options: &Value) -> String {
    json!({"type": ceremony, "challenge": text(&options["challenge"]), "origin": origin, "crossOrigin": false})
        .to_string()
}

/// Authenticator data (section 6.1).
fn authenticator_data(rp_id: &str, flags: u8, sign_count: u32, attested_credential: &[u8]) -> Vec<u8> {
    let hash = digest(&SHA256, rp_id.as_bytes());
    [hash.as_ref(), &[flags], &sign_count.to_be_bytes(), attested_credential].concat()
}

/// An attestation object of the format `none`, in CBOR: {"fmt": "none", "attStmt": {}, "authData": data}.
fn attestation_object(data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).expect("the id of the credential is short");
    [&b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58"[..], &[length], data].concat()
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("the options have {value} instead of a string"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use drystone_webauthn::{
        Authenticated, AuthenticationResponse, CreationOptions, Failure, Registered, RegistrationResponse,
        RelyingParty, RequestOptions, StoredCredential, User,
    };

    use super::*;

    const ORIGIN: &str = "https://app.example.com";
    const CHALLENGE: &str = "dGhpcyBpcyBub3QgcmFuZG9t";
    const USER_HANDLE: &[u8] = b"user-1";

    fn relying_party() -> RelyingParty {
        RelyingParty::new("example.com", &[ORIGIN.to_owned()]).unwrap()
    }

    fn created(challenge: &str) -> (Passkey, Result<Registered, Failure>) {
        let relying_party = relying_party();
        let options = CreationOptions {
            relying_party: &relying_party,
            name: "Example",
            user: User { handle: USER_HANDLE, name: "ada@example.com", display_name: "Ada" },
            challenge,
            timeout: Duration::from_mins(5),
            existing: &[],
        };
        let (passkey, credential) = Passkey::create(ORIGIN, &options.to_json());
        let response = RegistrationResponse::from_json(&credential).unwrap();
        (passkey, response.verify(&relying_party, |challenge| challenge == CHALLENGE))
    }

    fn registered() -> (Passkey, Registered) {
        let (passkey, registered) = created(CHALLENGE);
        (passkey, registered.unwrap())
    }

    fn outcome(
        passkey: &mut Passkey,
        registered: &Registered,
        sign_count: u32,
        (origin, challenge): (&str, &str),
    ) -> Result<Authenticated, Failure> {
        let relying_party = relying_party();
        let timeout = Duration::from_mins(5);
        let options = RequestOptions { relying_party: &relying_party, challenge, timeout, allowed: &[] };
        let response = AuthenticationResponse::from_json(&passkey.get(origin, &options.to_json())).unwrap();
        assert_eq!((response.credential_id(), response.user_handle()), (passkey.id(), Some(USER_HANDLE)));
        let stored = StoredCredential {
            public_key: &registered.public_key,
            user_handle: USER_HANDLE,
            sign_count,
            is_backup_eligible: registered.is_backup_eligible,
        };
        response.verify(&relying_party, stored, |challenge| challenge == CHALLENGE)
    }

    #[test]
    fn a_passkey_is_registered_for_its_challenge() {
        let (passkey, registered) = registered();
        assert_eq!((registered.id.as_slice(), registered.sign_count), (passkey.id(), 0));
        assert_eq!((registered.aaguid, registered.transports), (AAGUID, vec!["internal".to_owned()]));
        assert_eq!(created("b3RoZXI").1, Err(Failure::Challenge));
    }

    #[test]
    fn a_passkey_authenticates_for_its_challenge_and_origin_and_counts() {
        let (mut passkey, registered) = registered();
        for sign_count in 0..3 {
            let authenticated = outcome(&mut passkey, &registered, sign_count, (ORIGIN, CHALLENGE)).unwrap();
            assert_eq!(authenticated.sign_count, sign_count + 1);
        }
        let refused = outcome(&mut passkey, &registered, 3, (ORIGIN, "b3RoZXI"));
        assert_eq!(refused, Err(Failure::Challenge));
        let other = "https://example.org";
        let refused = outcome(&mut passkey, &registered, 4, (other, CHALLENGE));
        assert_eq!(refused, Err(Failure::Origin(other.to_owned())));
        let (mut another, _) = self::registered();
        assert_eq!(outcome(&mut another, &registered, 0, (ORIGIN, CHALLENGE)), Err(Failure::Signature));
    }

    #[test]
    fn a_passkey_without_a_counter_states_none() {
        let (passkey, registered) = registered();
        let mut passkey = passkey.without_counter();
        for _ in 0..2 {
            assert_eq!(outcome(&mut passkey, &registered, 0, (ORIGIN, CHALLENGE)).unwrap().sign_count, 0);
        }
    }
}
