//! The test vectors of the specification, section "Test Vectors". Few of them verify the user, which this crate requires: the rest have to
//! come as far as that.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use drystone_webauthn::{
    Authenticated, AuthenticationResponse, Failure, Registered, RegistrationResponse, RelyingParty, StoredCredential,
};
use serde_json::{Value, json};

const VECTORS: &str = include_str!("vectors.txt");

type Outcome = Result<(), Failure>;

/// The names of the vectors, with what their registration and their authentication have to result in.
const OUTCOMES: [(&str, Outcome, Outcome); 15] = [
    ("none-es256", Err(Failure::UserVerified), Err(Failure::UserVerified)),
    ("packed-self-es256", Ok(()), Err(Failure::UserVerified)),
    ("none-es256-crossOrigin", Err(Failure::CrossOrigin), Err(Failure::CrossOrigin)),
    ("none-es256-topOrigin", Err(Failure::CrossOrigin), Err(Failure::CrossOrigin)),
    ("none-es256-long-credential-id", Err(Failure::UserVerified), Ok(())),
    ("packed-es256", Err(Failure::AttestationFormat), Ok(())),
    ("packed-es384", Err(Failure::AttestationFormat), Err(Failure::PublicKey)),
    // It does not verify the user either, which is found first.
    ("packed-es512", Err(Failure::AttestationFormat), Err(Failure::UserVerified)),
    ("packed-rs256", Err(Failure::AttestationFormat), Err(Failure::UserVerified)),
    ("packed-eddsa", Err(Failure::AttestationFormat), Err(Failure::UserVerified)),
    ("packed-ed448", Err(Failure::AttestationFormat), Err(Failure::PublicKey)),
    ("tpm-es256", Err(Failure::AttestationFormat), Ok(())),
    ("android-key-es256", Err(Failure::AttestationFormat), Err(Failure::UserVerified)),
    ("apple-es256", Err(Failure::AttestationFormat), Err(Failure::UserVerified)),
    ("fido-u2f-es256", Err(Failure::AttestationFormat), Err(Failure::UserVerified)),
];

struct Vector(&'static str);

impl Vector {
    fn named(name: &str) -> Self {
        let (_, rest) = VECTORS.split_once(&format!("[{name}]\n")).expect("a vector");
        Self(rest.split("\n[").next().unwrap())
    }

    fn bytes(&self, member: &str) -> Vec<u8> {
        let hex = self.0.lines().find_map(|line| line.strip_prefix(member)?.strip_prefix(" = ")).expect("a member");
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn base64url(&self, member: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.bytes(member))
    }

    fn json(&self, response: &Value) -> Value {
        let id = self.base64url("create.credential_id");
        json!({"id": id, "rawId": id, "type": "public-key", "response": response})
    }

    /// The authenticator data of the registration: in each vector the attestation object ends with it.
    fn authenticator_data(&self) -> Vec<u8> {
        let object = self.bytes("create.attestationObject");
        let at = object.windows(9).position(|window| window == b"\x68authData").unwrap() + 9;
        // Bytes whose length takes one byte, or two.
        let head = match object[at] {
            0x58 => 2,
            0x59 => 3,
            other => panic!("{other:x}"),
        };
        object[at + head..].to_vec()
    }

    fn public_key(&self) -> Vec<u8> {
        self.authenticator_data()[55 + self.bytes("create.credential_id").len()..].to_vec()
    }

    fn register(&self) -> Result<Registered, Failure> {
        let json = self.json(&json!({
            "clientDataJSON": self.base64url("create.clientDataJSON"),
            "attestationObject": self.base64url("create.attestationObject"),
            "transports": ["internal"],
        }));
        let challenge = self.base64url("create.challenge");
        RegistrationResponse::from_json(&json.to_string())?.verify(&party(), |given| given == challenge)
    }

    fn authenticate(&self) -> Result<Authenticated, Failure> {
        let json = self.json(&json!({
            "clientDataJSON": self.base64url("get.clientDataJSON"),
            "authenticatorData": self.base64url("get.authenticatorData"),
            "signature": self.base64url("get.signature"),
        }));
        let challenge = self.base64url("get.challenge");
        let stored = StoredCredential {
            public_key: &self.public_key(),
            user_handle: b"user",
            sign_count: 0,
            is_backup_eligible: self.authenticator_data()[32] & 0x08 != 0,
        };
        AuthenticationResponse::from_json(&json.to_string())?.verify(&party(), stored, |given| given == challenge)
    }
}

fn party() -> RelyingParty {
    RelyingParty::new("example.org", &["https://example.org".to_owned()]).unwrap()
}

#[test]
fn each_vector_has_its_outcome() {
    assert_eq!(VECTORS.lines().filter(|line| line.starts_with('[')).count(), OUTCOMES.len());
    for (name, registered, authenticated) in OUTCOMES {
        let vector = Vector::named(name);
        assert_eq!(vector.register().map(|_| ()), registered, "{name}");
        assert_eq!(vector.authenticate().map(|_| ()), authenticated, "{name}");
    }
}

#[test]
fn a_credential_with_self_attestation_is_returned_as_the_vector_has_it() {
    let vector = Vector::named("packed-self-es256");
    let registered = vector.register().unwrap();
    assert_eq!(
        registered,
        Registered {
            id: vector.bytes("create.credential_id"),
            public_key: vector.public_key(),
            sign_count: 0,
            is_backup_eligible: true,
            is_backed_up: true,
            aaguid: vector.authenticator_data()[37..53].try_into().unwrap(),
            transports: vec!["internal".to_owned()],
        }
    );
}

#[test]
fn a_credential_id_of_1023_bytes_is_authenticated() {
    let vector = Vector::named("none-es256-long-credential-id");
    assert_eq!(vector.bytes("create.credential_id").len(), 1023);
    assert_eq!(vector.authenticate(), Ok(Authenticated { sign_count: 0, is_backed_up: false }));
}

#[test]
fn the_outcomes_without_user_verification_are_those_of_vectors_without_the_flag() {
    for (name, registered, authenticated) in OUTCOMES {
        let vector = Vector::named(name);
        let is_verified = |data: &[u8]| data[32] & 0x04 != 0;
        assert!(registered != Ok(()) || is_verified(&vector.authenticator_data()), "{name}");
        let in_registration = registered == Err(Failure::UserVerified);
        assert!(!in_registration || !is_verified(&vector.authenticator_data()), "{name}");
        let in_authentication = authenticated == Err(Failure::UserVerified);
        assert!(!in_authentication || !is_verified(&vector.bytes("get.authenticatorData")), "{name}");
    }
}

#[test]
fn a_vector_of_another_challenge_is_refused() {
    let vector = Vector::named("packed-self-es256");
    let json = vector.json(&json!({
        "clientDataJSON": vector.base64url("create.clientDataJSON"),
        "attestationObject": vector.base64url("create.attestationObject"),
    }));
    let other = vector.base64url("get.challenge");
    let outcome = RegistrationResponse::from_json(&json.to_string()).unwrap().verify(&party(), |given| given == other);
    assert_eq!(outcome, Err(Failure::Challenge));
}
