//! Tokens for tests.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use drystone::auth::v1::Jwk;
use uuid::Uuid;

use super::{Algorithm, Claims, Principal, PublicKey};
use crate::{
    clock::{Clock, Timestamp},
    id,
};

pub(crate) const ISSUER: &str = "https://id.drystone.example";
pub(crate) const AUDIENCE: &str = "drystone";

pub(crate) fn clock() -> Clock {
    Clock::manual("2026-03-01T12:00:00.5Z".parse().unwrap())
}

/// A signing key and its `kid`.
pub(crate) struct Signer {
    pub(crate) kid: String,
    pub(crate) pair: EcdsaKeyPair,
}

impl Signer {
    pub(crate) fn new(kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey::new(&self.kid, Algorithm::Es256, self.pair.public_key().as_ref()).unwrap()
    }

    pub(crate) fn jwk(&self) -> Jwk {
        let point = self.pair.public_key().as_ref();
        Jwk {
            kty: "EC".to_owned(),
            r#use: "sig".to_owned(),
            alg: "ES256".to_owned(),
            kid: self.kid.clone(),
            crv: Some("P-256".to_owned()),
            x: Some(encode(&point[1..33])),
            y: Some(encode(&point[33..])),
            ..Jwk::default()
        }
    }

    pub(crate) fn sign(&self, claims: &Claims) -> String {
        sign("ES256", &self.kid, claims, |message| {
            self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
        })
    }
}

pub(crate) fn sign(alg: &str, kid: &str, claims: &Claims, signature: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let header = serde_json::json!({ "alg": alg, "typ": "at+jwt", "kid": kid }).to_string();
    let signing_input = format!("{}.{}", encode(header), encode(serde_json::to_vec(claims).unwrap()));
    let signature = signature(signing_input.as_bytes());
    format!("{signing_input}.{}", encode(signature))
}

/// Claims of a token issued now with a lifetime of five minutes.
pub(crate) fn claims(now: Timestamp) -> Claims {
    Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: Uuid::now_v7(),
        sid: Uuid::now_v7(),
        jti: id::v7_at(now),
        client_id: Some("drystone".to_owned()),
        iat: now.timestamp(),
        exp: now.timestamp() + 300,
        nbf: None,
        auth_time: now.timestamp(),
        amr: vec!["pwd".to_owned()],
        roles: vec!["admin".to_owned()],
        perms: vec!["users:read".to_owned()],
        props: [("p".to_owned(), "owner".to_owned())].into(),
    }
}

/// The principal of a token issued at this time.
pub(crate) fn principal(issued_at: Timestamp) -> Principal {
    Principal {
        user_id: Uuid::now_v7(),
        session_id: Uuid::now_v7(),
        token_id: id::v7_at(issued_at),
        key_id: "key-1".into(),
        issued_at,
        expires_at: issued_at + TimeDelta::minutes(5),
        auth_time: issued_at,
        amr: Vec::new(),
        roles: vec![],
        permissions: vec![],
        properties: [].into(),
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
