//! Encoding and signing of valid and invalid tokens.

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::GoodToken;

/// Base64url without padding.
pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The three segments of a token.
pub(super) fn segments(token: &str) -> [&str; 3] {
    let segments: Vec<&str> = token.split('.').collect();
    segments.try_into().expect("a token of three segments")
}

/// A new key that is not in the key set: PKCS#8, and the public point.
pub(super) fn unknown_key() -> (Vec<u8>, Vec<u8>) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a new key");
    let key = pair.to_pkcs8v1().expect("PKCS#8").as_ref().to_vec();
    (key, pair.public_key().as_ref().to_vec())
}

/// A public point as a JWK.
pub(super) fn jwk(point: &[u8]) -> Value {
    json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
}

/// A JWS signature of `message`: `r` and `s` concatenated (RFC 7518, section 3.4).
pub(super) fn sign(key: &[u8], message: &str) -> Vec<u8> {
    sign_as(&ECDSA_P256_SHA256_FIXED_SIGNING, key, message)
}

/// A DER signature of `message`, as in X.509.
pub(super) fn sign_der(key: &[u8], message: &str) -> Vec<u8> {
    sign_as(&ECDSA_P256_SHA256_ASN1_SIGNING, key, message)
}

fn sign_as(algorithm: &'static EcdsaSigningAlgorithm, key: &[u8], message: &str) -> Vec<u8> {
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, key).expect("a P-256 key as PKCS#8");
    pair.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature").as_ref().to_vec()
}

impl GoodToken {
    /// A token that is signed with the valid key, with these members of the header and these claims replaced.
    ///
    /// # Panics
    /// If either is not an object.
    #[must_use]
    pub fn with(&self, header: &Value, claims: &Value) -> String {
        self.sign(&self.header_with(header), self.claims_with(claims))
    }

    /// A token with the valid header and these claims replaced, signed with another key.
    ///
    /// # Panics
    /// If the claims are not an object.
    #[must_use]
    pub fn with_wrong_signature(&self, claims: &Value) -> String {
        let (key, _) = unknown_key();
        sign_segments(&key, &encode(self.header().to_string()), &encode(self.claims_with(claims)))
    }

    /// The claims with these replaced.
    fn claims_with(&self, changes: &Value) -> String {
        let mut claims = self.claims.clone();
        claims.extend(changes.as_object().expect("an object of changes").clone());
        Value::from(claims).to_string()
    }

    pub(super) fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.kid })
    }

    /// The header with these members replaced.
    pub(super) fn header_with(&self, changes: &Value) -> Value {
        let mut header = self.header();
        for (name, value) in changes.as_object().expect("an object of changes") {
            header[name] = value.clone();
        }
        header
    }

    pub(super) fn claims_text(&self) -> String {
        Value::from(self.claims.clone()).to_string()
    }

    /// A signed token with the valid header and this payload.
    pub(super) fn sign_payload(&self, payload: impl AsRef<[u8]>) -> String {
        self.sign(&self.header(), payload)
    }

    /// A signed token with this header and payload.
    pub(super) fn sign(&self, header: &Value, payload: impl AsRef<[u8]>) -> String {
        self.sign_raw(header.to_string(), payload)
    }

    /// A signed token with these bytes as header, and this payload.
    pub(super) fn sign_raw(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        self.sign_segments(&encode(header), &encode(payload))
    }

    /// A signed token with these encoded segments.
    pub(super) fn sign_segments(&self, header: &str, payload: &str) -> String {
        sign_segments(&self.key, header, payload)
    }

    /// A token with this header and the valid claims, with an HMAC as signature.
    pub(super) fn hmac(&self, algorithm: hmac::Algorithm, header: &Value, secret: &[u8]) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(self.claims_text()));
        let tag = hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes());
        format!("{signed}.{}", encode(tag))
    }

    /// The public key, as a point and as a SubjectPublicKeyInfo.
    pub(super) fn public_key(&self) -> (Vec<u8>, Vec<u8>) {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.key).expect("a P-256 key");
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("an encodable key");
        (pair.public_key().as_ref().to_vec(), der.as_ref().to_vec())
    }

    /// A claim that is a number, such as `iat`.
    pub(super) fn number(&self, claim: &str) -> i64 {
        self.claims[claim].as_i64().expect("a numeric claim")
    }

    /// A claim that is a string, such as `sub`.
    pub(super) fn text(&self, claim: &str) -> &str {
        self.claims[claim].as_str().expect("a string claim")
    }
}

/// A token with these encoded segments, signed with this key.
pub(super) fn sign_segments(key: &[u8], header: &str, payload: &str) -> String {
    let signed = format!("{header}.{payload}");
    let signature = encode(sign(key, &signed));
    format!("{signed}.{signature}")
}
