//! A software authenticator, and the browser in front of it. All of what they send can be changed.

use std::convert::Infallible;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use drystone_webauthn::{
    Authenticated, AuthenticationResponse, Failure, Registered, RegistrationResponse, RelyingParty, StoredCredential,
};
use minicbor::{Encoder, encode::Write};
use serde_json::{Value, json};

pub const RP_ID: &str = "example.com";
pub const ORIGIN: &str = "https://app.example.com";
pub const CHALLENGE: &str = "dGhpcyBpcyBub3QgcmFuZG9t";
pub const USER_HANDLE: &[u8] = b"user-1";
pub const AAGUID: [u8; 16] = *b"an authenticator";

/// The flags of authenticator data.
pub const UP: u8 = 0x01;
pub const UV: u8 = 0x04;
pub const BE: u8 = 0x08;
pub const BS: u8 = 0x10;
pub const AT: u8 = 0x40;
pub const ED: u8 = 0x80;

/// The labels of COSE keys, and their values in CBOR.
pub type Entries = Vec<(i64, Vec<u8>)>;

pub fn party() -> RelyingParty {
    RelyingParty::new(RP_ID, &[ORIGIN.to_owned()]).unwrap()
}

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Bytes that grow: minicbor has that with its feature `alloc` alone, with which it reads by other code than in production.
pub struct Buffer(Vec<u8>);

impl Write for Buffer {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// What is written to an encoder.
pub fn cbor(write: impl FnOnce(&mut Encoder<Buffer>)) -> Vec<u8> {
    let mut encoder = Encoder::new(Buffer(Vec::new()));
    write(&mut encoder);
    encoder.into_writer().0
}

pub fn int(value: i64) -> Vec<u8> {
    cbor(|out| drop(out.i64(value)))
}

pub fn bytes(value: &[u8]) -> Vec<u8> {
    cbor(|out| drop(out.bytes(value)))
}

pub fn text(value: &str) -> Vec<u8> {
    cbor(|out| drop(out.str(value)))
}

/// A map of keys and values that are CBOR already.
pub fn map(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = cbor(|out| drop(out.map(entries.len() as u64)));
    for (key, value) in entries {
        out.extend([key.as_slice(), value].concat());
    }
    out
}

pub fn cose(entries: &[(i64, Vec<u8>)]) -> Vec<u8> {
    map(&entries.iter().map(|(label, value)| (int(*label), value.clone())).collect::<Vec<_>>())
}

pub fn attestation_object(format: &str, statement: &[u8], data: &[u8]) -> Vec<u8> {
    map(&[(text("fmt"), text(format)), (text("attStmt"), statement.to_vec()), (text("authData"), bytes(data))])
}

/// The attested credential data of a credential.
pub fn attested(id: &[u8], key: &[u8]) -> Vec<u8> {
    let length = u16::try_from(id.len()).unwrap().to_be_bytes();
    [&AAGUID[..], &length, id, key].concat()
}

pub enum Key {
    Es256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rs256(rsa::KeyPair),
}

impl Key {
    pub fn es256() -> Self {
        Self::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    pub fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    pub fn rs256() -> Self {
        Self::Rs256(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap())
    }

    pub fn algorithm(&self) -> i64 {
        match self {
            Self::Es256(_) => -7,
            Self::Ed25519(_) => -8,
            Self::Rs256(_) => -257,
        }
    }

    pub fn entries(&self) -> Entries {
        match self {
            Self::Es256(pair) => {
                let point = pair.public_key().as_ref();
                vec![(1, int(2)), (3, int(-7)), (-1, int(1)), (-2, bytes(&point[1..33])), (-3, bytes(&point[33..]))]
            }
            Self::Ed25519(pair) => {
                vec![(1, int(1)), (3, int(-8)), (-1, int(6)), (-2, bytes(pair.public_key().as_ref()))]
            }
            Self::Rs256(pair) => {
                // The DER of RFC 8017: the modulus of 256 bytes, then the exponent 65537.
                let der = pair.public_key().as_ref();
                assert_eq!(der.len(), 270);
                vec![(1, int(3)), (3, int(-257)), (-1, bytes(&der[9..265])), (-2, bytes(&der[267..]))]
            }
        }
    }

    pub fn cose(&self) -> Vec<u8> {
        cose(&self.entries())
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Es256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
        }
    }
}

/// Authenticator data.
pub struct Data {
    pub rp_id: &'static str,
    pub flags: u8,
    pub sign_count: u32,
    /// The attested credential, extensions, and what does not belong there.
    pub rest: Vec<u8>,
}

impl Data {
    pub fn encode(&self) -> Vec<u8> {
        let hash = digest(&SHA256, self.rp_id.as_bytes());
        [hash.as_ref(), &[self.flags], &self.sign_count.to_be_bytes(), &self.rest].concat()
    }
}

pub struct Passkey {
    pub key: Key,
    pub id: Vec<u8>,
}

impl Passkey {
    pub fn new(key: Key) -> Self {
        // In base64url it has both `-` and `_`.
        Self { key, id: b"credential: \xfb\xff".to_vec() }
    }

    /// A valid registration.
    pub fn registration(&self) -> Registration<'_> {
        Registration {
            passkey: self,
            client_data: client_data("webauthn.create"),
            data: Data {
                rp_id: RP_ID,
                flags: UP | UV | BE | AT,
                sign_count: 3,
                rest: attested(&self.id, &self.key.cose()),
            },
            format: "none",
            statement: map(&[]),
        }
    }

    /// A valid assertion by what [`Self::registration`] has registered.
    pub fn assertion(&self) -> Assertion<'_> {
        Assertion {
            passkey: self,
            client_data: client_data("webauthn.get"),
            data: Data { rp_id: RP_ID, flags: UP | UV | BE | BS, sign_count: 4, rest: vec![] },
            user_handle: json!(base64url(USER_HANDLE)),
            stored_key: self.key.cose(),
            stored_count: 3,
            is_backup_eligible: true,
        }
    }

    fn json(&self, response: &Value) -> Value {
        json!({"id": base64url(&self.id), "rawId": base64url(&self.id), "type": "public-key", "response": response})
    }
}

fn client_data(ceremony: &str) -> Value {
    json!({"type": ceremony, "challenge": CHALLENGE, "origin": ORIGIN, "crossOrigin": false})
}

fn signed(data: &[u8], client_data: &[u8]) -> Vec<u8> {
    [data, digest(&SHA256, client_data).as_ref()].concat()
}

pub struct Registration<'a> {
    pub passkey: &'a Passkey,
    pub client_data: Value,
    pub data: Data,
    pub format: &'static str,
    pub statement: Vec<u8>,
}

impl Registration<'_> {
    /// The members of the statement of a self attestation of all of this.
    pub fn self_attestation(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let key = &self.passkey.key;
        let signature = key.sign(&signed(&self.data.encode(), self.client_data.to_string().as_bytes()));
        vec![(text("alg"), int(key.algorithm())), (text("sig"), bytes(&signature))]
    }

    /// Attests itself.
    pub fn attest(&mut self) {
        self.format = "packed";
        self.statement = map(&self.self_attestation());
    }

    pub fn object(&self) -> Vec<u8> {
        attestation_object(self.format, &self.statement, &self.data.encode())
    }

    pub fn json(&self) -> Value {
        self.json_with(self.client_data.to_string().as_bytes(), &self.object())
    }

    pub fn json_with(&self, client_data: &[u8], object: &[u8]) -> Value {
        self.passkey.json(&json!({
            "clientDataJSON": base64url(client_data),
            "attestationObject": base64url(object),
            "transports": ["internal", "hybrid"],
        }))
    }

    pub fn outcome(&self) -> Result<Registered, Failure> {
        register(&self.json())
    }

    /// The outcome with another attestation object.
    pub fn outcome_of(&self, object: &[u8]) -> Result<Registered, Failure> {
        register(&self.json_with(self.client_data.to_string().as_bytes(), object))
    }
}

pub struct Assertion<'a> {
    pub passkey: &'a Passkey,
    pub client_data: Value,
    pub data: Data,
    pub user_handle: Value,
    pub stored_key: Vec<u8>,
    pub stored_count: u32,
    pub is_backup_eligible: bool,
}

impl Assertion<'_> {
    /// What is signed.
    pub fn signed(&self) -> Vec<u8> {
        signed(&self.data.encode(), self.client_data.to_string().as_bytes())
    }

    pub fn signature(&self) -> Vec<u8> {
        self.passkey.key.sign(&self.signed())
    }

    pub fn json(&self) -> Value {
        self.json_with(self.client_data.to_string().as_bytes(), &self.data.encode(), &self.signature())
    }

    pub fn json_with(&self, client_data: &[u8], data: &[u8], signature: &[u8]) -> Value {
        self.passkey.json(&json!({
            "clientDataJSON": base64url(client_data),
            "authenticatorData": base64url(data),
            "signature": base64url(signature),
            "userHandle": self.user_handle,
        }))
    }

    pub fn outcome(&self) -> Result<Authenticated, Failure> {
        self.outcome_of(&self.json())
    }

    pub fn outcome_of(&self, json: &Value) -> Result<Authenticated, Failure> {
        let stored = StoredCredential {
            public_key: &self.stored_key,
            user_handle: USER_HANDLE,
            sign_count: self.stored_count,
            is_backup_eligible: self.is_backup_eligible,
        };
        AuthenticationResponse::from_json(&json.to_string())?
            .verify(&party(), stored, |challenge| challenge == CHALLENGE)
    }
}

pub fn register(json: &Value) -> Result<Registered, Failure> {
    RegistrationResponse::from_json(&json.to_string())?.verify(&party(), |challenge| challenge == CHALLENGE)
}
