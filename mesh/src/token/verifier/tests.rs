//! Caching and revocation of verified tokens. Invalid tokens are tested in `tests/mesh/bad_tokens.rs`.

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
    time::to_proto,
    token::{
        Algorithm, PublicKey,
        testing::{AUDIENCE, ISSUER, Signer, claims, clock, sign},
    },
};

struct Fixture {
    clock: Clock,
    signer: Signer,
    revocations: RevocationView,
    verifier: TokenVerifier,
}

impl Fixture {
    fn new() -> Self {
        let (clock, signer, keys) = (clock(), Signer::new("key-1"), KeySet::new());
        keys.replace(vec![signer.public()]);
        let config = TokenVerifierConfig::new(ISSUER, AUDIENCE);
        let revocations = view_without_revocations(&clock);
        let verifier = TokenVerifier::new(config, keys, revocations.clone(), clock.clone());
        Self { clock, signer, revocations, verifier }
    }

    fn token(&self) -> String {
        self.signer.sign(&claims(self.clock.now()))
    }

    fn revoke_tokens_before(&self, user_id: String, before: Timestamp) {
        let user_tokens = UserTokens { user_id, before_time: Some(to_proto(before)) };
        let scope = Some(Scope::UserTokens(user_tokens));
        self.revocations.apply(&[Revocation { scope, expire_time: Some(to_proto(before + LIFETIME)) }]);
    }
}

/// A view that has received an empty update.
fn view_without_revocations(clock: &Clock) -> RevocationView {
    let view = RevocationView::new(clock.clone());
    view.apply(&[]);
    view
}

const LIFETIME: Duration = Duration::from_hours(1);

#[test]
fn a_verified_token_is_cached() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let first = fixture.verifier.verify(&token).unwrap();
    let second = fixture.verifier.verify(&token).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert!(first.has_permission("users:read") && !first.has_permission("users:write"));
}

#[test]
fn clones_share_the_cache() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let first = fixture.verifier.clone().verify(&token).unwrap();
    assert!(Arc::ptr_eq(&first, &fixture.verifier.verify(&token).unwrap()));
}

#[test]
fn tokens_expire_five_seconds_after_exp_cached_or_not() {
    for cached in [true, false] {
        let fixture = Fixture::new();
        let token = fixture.token();
        if cached {
            fixture.verifier.verify(&token).unwrap();
        }
        // Claims have whole seconds: `iat` is half a second before the issue time.
        fixture.clock.advance(Duration::from_millis(300_000 + 4_499));
        let same_cache = fixture.verifier.clone();
        if cached {
            same_cache.verify(&token).unwrap();
        }
        fixture.clock.advance(Duration::from_millis(1));
        assert_eq!(fixture.verifier.verify(&token), Err(TokenError::Expired));
        assert_eq!(fixture.verifier.verify(&token), Err(TokenError::Expired));
    }
}

#[test]
fn a_token_is_accepted_up_to_five_seconds_before_iat() {
    let fixture = Fixture::new();
    let ahead = |seconds| fixture.signer.sign(&claims(fixture.clock.now() + Duration::from_secs(seconds)));
    assert!(fixture.verifier.verify(&ahead(5)).is_ok());
    assert_eq!(fixture.verifier.verify(&ahead(6)), Err(TokenError::NotYetValid));
}

#[test]
fn the_lifetime_of_a_token_is_limited() {
    let fixture = Fixture::new();
    let with_lifetime = |seconds| {
        let mut claims = claims(fixture.clock.now());
        claims.exp = claims.iat + seconds;
        fixture.signer.sign(&claims)
    };
    assert!(fixture.verifier.verify(&with_lifetime(3600)).is_ok());
    assert_eq!(fixture.verifier.verify(&with_lifetime(3601)), Err(TokenError::Lifetime));
    assert_eq!(fixture.verifier.verify(&with_lifetime(0)), Err(TokenError::Lifetime));
}

#[test]
fn a_token_whose_nbf_has_passed_is_accepted() {
    let fixture = Fixture::new();
    let mut claims = claims(fixture.clock.now());
    claims.nbf = Some(claims.iat);
    assert!(fixture.verifier.verify(&fixture.signer.sign(&claims)).is_ok());
}

#[test]
fn a_token_of_the_previous_release_without_client_id_is_accepted() {
    let fixture = Fixture::new();
    let claims = claims(fixture.clock.now());
    let without = Claims { client_id: None, ..claims };
    fixture.verifier.verify(&fixture.signer.sign(&without)).unwrap();
}

#[test]
fn a_cached_token_of_an_ended_session_is_rejected() {
    let fixture = Fixture::new();
    let (token, other) = (fixture.token(), fixture.token());
    let principal = fixture.verifier.verify(&token).unwrap();
    let scope = Some(Scope::SessionId(principal.session_id.to_string()));
    let expire_time = Some(to_proto(fixture.clock.now() + LIFETIME));
    fixture.revocations.apply(&[Revocation { scope, expire_time }]);
    assert_eq!(fixture.verifier.verify(&token), Err(TokenError::Revoked));
    assert!(fixture.verifier.verify(&other).is_ok());
}

#[test]
fn only_tokens_issued_before_a_revocation_are_rejected() {
    let fixture = Fixture::new();
    let mut claims = claims(fixture.clock.now());
    let early = fixture.signer.sign(&claims);
    fixture.verifier.verify(&early).unwrap();
    fixture.revoke_tokens_before(claims.sub.to_string(), fixture.clock.now());
    assert_eq!(fixture.verifier.verify(&early), Err(TokenError::Revoked));
    fixture.clock.advance(Duration::from_millis(1));
    claims.jti = crate::id::v7_at(fixture.clock.now());
    assert!(fixture.verifier.verify(&fixture.signer.sign(&claims)).is_ok());
}

#[test]
fn a_cached_token_of_a_removed_key_is_rejected() {
    let fixture = Fixture::new();
    let token = fixture.token();
    fixture.verifier.verify(&token).unwrap();
    fixture.verifier.keys().replace(vec![Signer::new("key-2").public()]);
    assert_eq!(fixture.verifier.verify(&token), Err(TokenError::UnknownKey));
}

#[test]
fn a_cached_token_of_a_replaced_key_is_rejected() {
    let fixture = Fixture::new();
    let token = fixture.token();
    fixture.verifier.verify(&token).unwrap();
    fixture.verifier.keys().replace(vec![Signer::new("key-1").public()]);
    assert_eq!(fixture.verifier.verify(&token), Err(TokenError::Signature));
}

#[test]
fn a_cached_token_stays_valid_when_other_keys_are_added_and_removed() {
    let fixture = Fixture::new();
    let next = Signer::new("key-2");
    let token = fixture.token();
    let first = fixture.verifier.verify(&token).unwrap();
    fixture.verifier.keys().replace(vec![fixture.signer.public(), next.public()]);
    assert!(Arc::ptr_eq(&first, &fixture.verifier.verify(&token).unwrap()));
    assert!(fixture.verifier.verify(&next.sign(&claims(fixture.clock.now()))).is_ok());
    fixture.verifier.keys().replace(vec![fixture.signer.public()]);
    let reverified = fixture.verifier.verify(&token).unwrap();
    assert_eq!(first, reverified);
    assert!(Arc::ptr_eq(&reverified, &fixture.verifier.verify(&token).unwrap()));
}

#[test]
fn tokens_are_rejected_until_revocations_are_received() {
    let (clock, signer, keys) = (clock(), Signer::new("key-1"), KeySet::new());
    keys.replace(vec![signer.public()]);
    let view = RevocationView::new(clock.clone());
    let verifier = TokenVerifier::new(TokenVerifierConfig::new(ISSUER, AUDIENCE), keys, view.clone(), clock.clone());
    let token = signer.sign(&claims(clock.now()));
    assert_eq!(verifier.verify(&token), Err(TokenError::NoRevocations));
    assert_eq!(Error::from(TokenError::NoRevocations).reason(), Reason::Unavailable);
    view.apply(&[]);
    assert!(verifier.verify(&token).is_ok());
}

#[test]
fn without_keys_tokens_are_unavailable_and_not_invalid() {
    let clock = clock();
    let config = TokenVerifierConfig::new(ISSUER, AUDIENCE);
    let verifier = TokenVerifier::new(config, KeySet::new(), view_without_revocations(&clock), clock.clone());
    let token = Signer::new("key-1").sign(&claims(clock.now()));
    assert_eq!(verifier.verify(&token), Err(TokenError::NoKeys));
    assert_eq!(Error::from(TokenError::NoKeys).reason(), Reason::Unavailable);
}

#[test]
fn ed25519_and_rsa_keys_verify_only_with_their_algorithm() {
    let fixture = Fixture::new();
    let claims = claims(fixture.clock.now());
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    fixture.verifier.keys().replace(vec![
        PublicKey::new("ed", Algorithm::EdDsa, ed25519.public_key().as_ref()).unwrap(),
        PublicKey::new("rsa", Algorithm::Rs256, rsa.public_key().as_ref()).unwrap(),
    ]);
    let with_ed25519 = |message: &[u8]| ed25519.sign(message).as_ref().to_vec();
    let with_rsa = |message: &[u8]| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    };
    let verify = |token: String| fixture.verifier.verify(&token).map(|principal| principal.user_id);
    assert_eq!(verify(sign("EdDSA", "ed", &claims, with_ed25519)), Ok(claims.sub));
    assert_eq!(verify(sign("RS256", "rsa", &claims, with_rsa)), Ok(claims.sub));
    assert_eq!(verify(sign("ES256", "ed", &claims, with_ed25519)), Err(TokenError::Algorithm));
    assert_eq!(verify(sign("PS256", "rsa", &claims, with_rsa)), Err(TokenError::Algorithm));
    assert_eq!(verify(sign("EdDSA", "rsa", &claims, with_ed25519)), Err(TokenError::Algorithm));
    assert_eq!(verify(sign("RS256", "rsa", &claims, with_ed25519)), Err(TokenError::Signature));
}

#[test]
fn the_tokens_of_a_withdrawn_key_are_rejected_at_once_cached_or_not() {
    let fixture = Fixture::new();
    let next = Signer::new("key-2");
    fixture.verifier.keys().replace(vec![fixture.signer.public(), next.public()]);
    let (cached, other) = (fixture.token(), fixture.token());
    let principal = fixture.verifier.verify(&cached).unwrap();
    assert_eq!(&*principal.key_id, "key-1");
    let of_next = next.sign(&claims(fixture.clock.now()));
    fixture.verifier.verify(&of_next).unwrap();

    let scope = Some(Scope::KeyId("key-1".to_owned()));
    let expire_time = Some(to_proto(fixture.clock.now() + LIFETIME));
    fixture.revocations.apply(&[Revocation { scope, expire_time }]);
    assert_eq!(fixture.verifier.verify(&cached), Err(TokenError::Revoked));
    assert_eq!(fixture.verifier.verify(&other), Err(TokenError::Revoked));
    assert!(fixture.verifier.is_revoked(&principal), "also for a call that lasts");
    fixture.verifier.verify(&of_next).unwrap();
}

/// The successor of a withdrawn key signs at once. Until the keys are fetched again, nobody is told that its tokens are invalid.
#[test]
fn after_a_withdrawal_an_unknown_key_is_unavailable_until_the_keys_are_fetched() {
    let fixture = Fixture::new();
    let next = Signer::new("key-2");
    let of_next = next.sign(&claims(fixture.clock.now()));
    assert_eq!(fixture.verifier.verify(&of_next), Err(TokenError::UnknownKey));
    fixture.revocations.apply(&[Revocation { scope: Some(Scope::KeyId("key-1".to_owned())), expire_time: None }]);
    assert_eq!(fixture.verifier.verify(&of_next), Err(TokenError::KeysOutdated));
    assert_eq!(Error::from(TokenError::KeysOutdated).reason(), Reason::Unavailable);
    fixture.verifier.keys().set_withdrawn_before(1);
    assert_eq!(fixture.verifier.verify(&of_next), Err(TokenError::UnknownKey));
    fixture.verifier.keys().replace(vec![next.public()]);
    assert!(fixture.verifier.verify(&of_next).is_ok());
}

#[test]
fn lookups_and_verification_times_are_counted() {
    let (mut fixture, metrics) = (Fixture::new(), crate::telemetry::Metrics::default());
    fixture.verifier = fixture.verifier.with_metrics(TokenMetrics::new(&metrics, "user"));
    let token = fixture.token();
    for _ in 0..3 {
        fixture.verifier.verify(&token).unwrap();
    }
    fixture.verifier.verify(&Signer::new("key-2").sign(&claims(fixture.clock.now()))).unwrap_err();
    let rendered = metrics.render();
    for line in [
        r#"drystone_token_cache_lookups_total{service="user",outcome="hit"} 2"#,
        r#"drystone_token_cache_lookups_total{service="user",outcome="miss"} 2"#,
        r#"drystone_token_key_lookups_total{service="user",outcome="found"} 1"#,
        r#"drystone_token_key_lookups_total{service="user",outcome="unknown"} 1"#,
        r#"drystone_token_verification_duration_seconds_count{service="user"} 1"#,
        r#"drystone_token_withdrawn_keys{service="user"} 0"#,
    ] {
        assert!(rendered.lines().any(|rendered| rendered == line), "{line} is not in {rendered}");
    }
}

#[test]
fn more_tokens_than_the_cache_capacity_verify() {
    let mut fixture = Fixture::new();
    let mut config = TokenVerifierConfig::new(ISSUER, AUDIENCE);
    config.cache_capacity = 4;
    let keys = fixture.verifier.keys().clone();
    fixture.verifier =
        TokenVerifier::new(config, keys, view_without_revocations(&fixture.clock), fixture.clock.clone());
    let tokens: Vec<_> = (0..20).map(|_| fixture.token()).collect();
    for token in tokens.iter().chain(&tokens) {
        assert!(fixture.verifier.verify(token).is_ok());
    }
}

#[test]
fn token_errors_map_to_reasons() {
    let reason = |error: TokenError| Error::from(error).reason();
    assert_eq!(reason(TokenError::Signature), Reason::TokenInvalid);
    assert_eq!(reason(TokenError::Lifetime), Reason::TokenInvalid);
    assert_eq!(reason(TokenError::Expired), Reason::TokenExpired);
    assert_eq!(reason(TokenError::Revoked), Reason::TokenRevoked);
}

#[test]
fn an_entry_point_checks_everything_except_for_revocation() {
    let (clock, signer, keys) = (clock(), Signer::new("key-1"), KeySet::new());
    let verifier =
        TokenVerifier::for_entry_point(TokenVerifierConfig::new(ISSUER, AUDIENCE), keys.clone(), clock.clone());
    let token = signer.sign(&claims(clock.now()));
    assert_eq!(verifier.verify(&token), Err(TokenError::NoKeys));
    keys.replace(vec![signer.public()]);
    assert!(verifier.verify(&token).is_ok(), "no revocations are needed");
    assert_eq!(verifier.verify(&Signer::new("key-1").sign(&claims(clock.now()))), Err(TokenError::Signature));
    assert_eq!(verifier.verify(&Signer::new("key-2").sign(&claims(clock.now()))), Err(TokenError::UnknownKey));
    clock.advance(LIFETIME);
    assert_eq!(verifier.verify(&token), Err(TokenError::Expired));
}
