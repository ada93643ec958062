//! What a verifier remembers, and what ends that. The ways in which a token can be wrong are in `tests/bad_tokens.rs`.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use drystone::session::v1::{Revocation, UserTokens, revocation::Scope};

use super::*;
use crate::{
    clock::Timestamp,
    error::{Error, Reason},
    token::{
        Algorithm, PublicKey,
        testing::{AUDIENCE, ISSUER, Signer, claims, clock, sign},
    },
};

struct Setting {
    clock: Clock,
    signer: Signer,
    verifier: Verifier,
}

impl Setting {
    fn new() -> Self {
        let (clock, signer, keys) = (clock(), Signer::new("key-1"), KeySet::new());
        keys.replace(vec![signer.public()]);
        let config = VerifierConfig::new(ISSUER, AUDIENCE);
        let verifier = Verifier::new(config, keys, heard_of_nothing(&clock), clock.clone());
        Self { clock, signer, verifier }
    }

    fn token(&self) -> String {
        self.signer.sign(&claims(self.clock.now()))
    }

    fn void_tokens_before(&self, user_id: String, before: Timestamp) {
        let user_tokens = UserTokens { user_id, before_time: Some(proto(before)) };
        let scope = Some(Scope::UserTokens(user_tokens));
        self.verifier.revocations().apply(&[Revocation { scope, expire_time: Some(proto(before + LIFETIME)) }]);
    }
}

/// A view that has heard that nothing is revoked.
fn heard_of_nothing(clock: &Clock) -> RevocationView {
    let view = RevocationView::new(clock.clone());
    view.apply(&[]);
    view
}

const LIFETIME: Duration = Duration::from_hours(1);

fn proto(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().cast_signed() }
}

#[test]
fn a_token_is_proved_once_and_then_remembered() {
    let setting = Setting::new();
    let token = setting.token();
    let first = setting.verifier.verify(&token).unwrap();
    let second = setting.verifier.verify(&token).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert!(first.has_permission("users:read") && !first.has_permission("users:write"));
}

#[test]
fn a_token_is_remembered_by_clones_too() {
    let setting = Setting::new();
    let token = setting.token();
    let first = setting.verifier.clone().verify(&token).unwrap();
    assert!(Arc::ptr_eq(&first, &setting.verifier.verify(&token).unwrap()));
}

#[test]
fn a_remembered_token_ends_five_seconds_after_its_time_as_an_unknown_one_does() {
    for remembered in [true, false] {
        let setting = Setting::new();
        let token = setting.token();
        if remembered {
            setting.verifier.verify(&token).unwrap();
        }
        // The claims are of whole seconds: the token was made half a second ago by them.
        setting.clock.advance(Duration::from_millis(300_000 + 4_499));
        let warm = setting.verifier.clone();
        if remembered {
            warm.verify(&token).unwrap();
        }
        setting.clock.advance(Duration::from_millis(1));
        assert_eq!(setting.verifier.verify(&token), Err(TokenError::Expired));
        assert_eq!(setting.verifier.verify(&token), Err(TokenError::Expired));
    }
}

#[test]
fn a_token_may_come_five_seconds_before_its_time_and_no_more() {
    let setting = Setting::new();
    let ahead = |seconds| setting.signer.sign(&claims(setting.clock.now() + Duration::from_secs(seconds)));
    assert!(setting.verifier.verify(&ahead(5)).is_ok());
    assert_eq!(setting.verifier.verify(&ahead(6)), Err(TokenError::NotYetValid));
}

#[test]
fn a_token_may_live_as_long_as_the_configuration_says_and_no_longer() {
    let setting = Setting::new();
    let lasting = |seconds| {
        let mut claims = claims(setting.clock.now());
        claims.exp = claims.iat + seconds;
        setting.signer.sign(&claims)
    };
    assert!(setting.verifier.verify(&lasting(3600)).is_ok());
    assert_eq!(setting.verifier.verify(&lasting(3601)), Err(TokenError::Lifetime));
    assert_eq!(setting.verifier.verify(&lasting(0)), Err(TokenError::Lifetime));
}

#[test]
fn a_token_whose_nbf_has_passed_is_accepted() {
    let setting = Setting::new();
    let mut claims = claims(setting.clock.now());
    claims.nbf = Some(claims.iat);
    assert!(setting.verifier.verify(&setting.signer.sign(&claims)).is_ok());
}

#[test]
fn a_token_of_the_release_before_without_a_client_id_is_accepted() {
    let setting = Setting::new();
    let claims = claims(setting.clock.now());
    let without = Claims { client_id: None, ..claims };
    setting.verifier.verify(&setting.signer.sign(&without)).unwrap();
}

#[test]
fn a_remembered_token_of_a_session_that_is_over_is_refused_at_once() {
    let setting = Setting::new();
    let (token, other) = (setting.token(), setting.token());
    let principal = setting.verifier.verify(&token).unwrap();
    let scope = Some(Scope::SessionId(principal.session_id.to_string()));
    let expire_time = Some(proto(setting.clock.now() + LIFETIME));
    setting.verifier.revocations().apply(&[Revocation { scope, expire_time }]);
    assert_eq!(setting.verifier.verify(&token), Err(TokenError::Revoked));
    assert!(setting.verifier.verify(&other).is_ok());
}

#[test]
fn tokens_made_before_they_were_made_void_are_refused_and_later_ones_are_not() {
    let setting = Setting::new();
    let mut claims = claims(setting.clock.now());
    let early = setting.signer.sign(&claims);
    setting.verifier.verify(&early).unwrap();
    setting.void_tokens_before(claims.sub.to_string(), setting.clock.now());
    assert_eq!(setting.verifier.verify(&early), Err(TokenError::Revoked));
    setting.clock.advance(Duration::from_millis(1));
    claims.jti = crate::id::v7_at(setting.clock.now());
    assert!(setting.verifier.verify(&setting.signer.sign(&claims)).is_ok());
}

#[test]
fn a_remembered_token_dies_with_its_key() {
    let setting = Setting::new();
    let token = setting.token();
    setting.verifier.verify(&token).unwrap();
    setting.verifier.keys().replace(vec![Signer::new("key-2").public()]);
    assert_eq!(setting.verifier.verify(&token), Err(TokenError::UnknownKey));
}

#[test]
fn a_remembered_token_dies_when_its_kid_names_another_key() {
    let setting = Setting::new();
    let token = setting.token();
    setting.verifier.verify(&token).unwrap();
    setting.verifier.keys().replace(vec![Signer::new("key-1").public()]);
    assert_eq!(setting.verifier.verify(&token), Err(TokenError::Signature));
}

#[test]
fn a_remembered_token_outlives_the_coming_of_a_new_key_and_the_going_of_another() {
    let setting = Setting::new();
    let next = Signer::new("key-2");
    let token = setting.token();
    let first = setting.verifier.verify(&token).unwrap();
    setting.verifier.keys().replace(vec![setting.signer.public(), next.public()]);
    assert!(Arc::ptr_eq(&first, &setting.verifier.verify(&token).unwrap()));
    assert!(setting.verifier.verify(&next.sign(&claims(setting.clock.now()))).is_ok());
    setting.verifier.keys().replace(vec![setting.signer.public()]);
    let anew = setting.verifier.verify(&token).unwrap();
    assert_eq!(first, anew);
    assert!(Arc::ptr_eq(&anew, &setting.verifier.verify(&token).unwrap()));
}

#[test]
fn a_server_that_has_heard_of_no_revocation_yet_lets_no_token_in() {
    let (clock, signer, keys) = (clock(), Signer::new("key-1"), KeySet::new());
    keys.replace(vec![signer.public()]);
    let view = RevocationView::new(clock.clone());
    let verifier = Verifier::new(VerifierConfig::new(ISSUER, AUDIENCE), keys, view.clone(), clock.clone());
    let token = signer.sign(&claims(clock.now()));
    assert_eq!(verifier.verify(&token), Err(TokenError::NoRevocations));
    assert_eq!(Error::from(TokenError::NoRevocations).reason(), Reason::Unavailable);
    view.apply(&[]);
    assert!(verifier.verify(&token).is_ok());
}

#[test]
fn without_any_key_no_token_is_called_bad() {
    let clock = clock();
    let config = VerifierConfig::new(ISSUER, AUDIENCE);
    let verifier = Verifier::new(config, KeySet::new(), heard_of_nothing(&clock), clock.clone());
    let token = Signer::new("key-1").sign(&claims(clock.now()));
    assert_eq!(verifier.verify(&token), Err(TokenError::NoKeys));
    assert_eq!(Error::from(TokenError::NoKeys).reason(), Reason::Unavailable);
}

#[test]
fn ed25519_and_rsa_keys_verify_under_their_own_name_only() {
    let setting = Setting::new();
    let claims = claims(setting.clock.now());
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    setting.verifier.keys().replace(vec![
        PublicKey::new("ed", Algorithm::EdDsa, ed25519.public_key().as_ref()).unwrap(),
        PublicKey::new("rsa", Algorithm::Rs256, rsa.public_key().as_ref()).unwrap(),
    ]);
    let with_ed25519 = |message: &[u8]| ed25519.sign(message).as_ref().to_vec();
    let with_rsa = |message: &[u8]| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    };
    let verify = |token: String| setting.verifier.verify(&token).map(|principal| principal.user_id);
    assert_eq!(verify(sign("EdDSA", "ed", &claims, with_ed25519)), Ok(claims.sub));
    assert_eq!(verify(sign("RS256", "rsa", &claims, with_rsa)), Ok(claims.sub));
    assert_eq!(verify(sign("ES256", "ed", &claims, with_ed25519)), Err(TokenError::Algorithm));
    assert_eq!(verify(sign("PS256", "rsa", &claims, with_rsa)), Err(TokenError::Algorithm));
    assert_eq!(verify(sign("EdDSA", "rsa", &claims, with_ed25519)), Err(TokenError::Algorithm));
    assert_eq!(verify(sign("RS256", "rsa", &claims, with_ed25519)), Err(TokenError::Signature));
}

#[test]
fn more_tokens_than_are_remembered_still_verify() {
    let mut setting = Setting::new();
    let mut config = VerifierConfig::new(ISSUER, AUDIENCE);
    config.cache_capacity = 4;
    let keys = setting.verifier.keys().clone();
    setting.verifier = Verifier::new(config, keys, heard_of_nothing(&setting.clock), setting.clock.clone());
    let tokens: Vec<_> = (0..20).map(|_| setting.token()).collect();
    for token in tokens.iter().chain(&tokens) {
        assert!(setting.verifier.verify(token).is_ok());
    }
}

#[test]
fn each_refusal_has_the_reason_that_tells_a_client_what_to_do() {
    let reason = |error: TokenError| Error::from(error).reason();
    assert_eq!(reason(TokenError::Signature), Reason::TokenInvalid);
    assert_eq!(reason(TokenError::Lifetime), Reason::TokenInvalid);
    assert_eq!(reason(TokenError::Expired), Reason::TokenExpired);
    assert_eq!(reason(TokenError::Revoked), Reason::TokenRevoked);
}
