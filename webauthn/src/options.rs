//! What is asked of the browser (sections 5.4 and 5.5), in the form that `PublicKeyCredential.parseCreationOptionsFromJSON()` and
//! `parseRequestOptionsFromJSON()` read.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{public_key::ALGORITHMS, relying_party::RelyingParty};

/// The user of a new credential.
#[derive(Debug, Clone, Copy)]
pub struct User<'a> {
    /// What identifies them, up to 64 bytes: authenticators return it.
    pub handle: &'a [u8],
    /// How they sign in, such as their e-mail address.
    pub name: &'a str,
    /// Their name.
    pub display_name: &'a str,
}

/// A credential, as options name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialDescriptor {
    /// Its id.
    pub id: Vec<u8>,
    /// How browsers reach its authenticator.
    pub transports: Vec<String>,
}

/// What is asked of the browser to register a passkey.
#[derive(Debug)]
pub struct CreationOptions<'a> {
    /// Who asks.
    pub relying_party: &'a RelyingParty,
    /// How users know them.
    pub name: &'a str,
    /// The user.
    pub user: User<'a>,
    /// The challenge, in base64url.
    pub challenge: &'a str,
    /// How long the user may take.
    pub timeout: Duration,
    /// The credentials that the user has already: not another one on the same authenticator.
    pub existing: &'a [CredentialDescriptor],
}

/// What is asked of the browser to use a passkey.
#[derive(Debug)]
pub struct RequestOptions<'a> {
    /// Who asks.
    pub relying_party: &'a RelyingParty,
    /// The challenge, in base64url.
    pub challenge: &'a str,
    /// How long the user may take.
    pub timeout: Duration,
    /// The credentials of which one is to be used; empty: any that the authenticator knows for the relying party.
    pub allowed: &'a [CredentialDescriptor],
}

impl CreationOptions<'_> {
    /// As `PublicKeyCredentialCreationOptionsJSON`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let algorithms = ALGORITHMS.map(|algorithm| json!({"type": "public-key", "alg": algorithm}));
        json!({
            "rp": {"id": self.relying_party.id(), "name": self.name},
            "user": {
                "id": URL_SAFE_NO_PAD.encode(self.user.handle),
                "name": self.user.name,
                "displayName": self.user.display_name,
            },
            "challenge": self.challenge,
            "pubKeyCredParams": algorithms,
            "timeout": millis(self.timeout),
            "excludeCredentials": descriptors(self.existing),
            "authenticatorSelection": {
                "residentKey": "required",
                "requireResidentKey": true,
                "userVerification": "required",
            },
            "attestation": "none",
        })
    }
}

impl RequestOptions<'_> {
    /// As `PublicKeyCredentialRequestOptionsJSON`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "challenge": self.challenge,
            "timeout": millis(self.timeout),
            "rpId": self.relying_party.id(),
            "allowCredentials": descriptors(self.allowed),
            "userVerification": "required",
        })
    }
}

fn millis(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

fn descriptors(credentials: &[CredentialDescriptor]) -> Vec<Value> {
    let to_json = |CredentialDescriptor { id, transports }: &CredentialDescriptor| json!({"type": "public-key", "id": URL_SAFE_NO_PAD.encode(id), "transports": transports});
    credentials.iter().map(to_json).collect()
}
