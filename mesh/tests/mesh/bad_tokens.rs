//! Every token of the table is refused, and by the check that is meant to refuse it.

use std::collections::HashSet;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use drystone_mesh::{
    clock::{Clock, Timestamp},
    id,
    token::{Algorithm, Claims, KeySet, PublicKey, RevocationView, TokenError, TokenVerifier, TokenVerifierConfig},
};
use drystone_tests::bad_tokens::{self, BadToken, GoodToken};
use proptest::prelude::*;

const ISSUER: &str = "https://id.drystone.example";

struct Fixture {
    verifier: TokenVerifier,
    good: GoodToken,
}

fn fixture() -> Fixture {
    let clock = Clock::manual("2026-03-01T12:00:00.123456Z".parse().expect("a time"));
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let keys = KeySet::new();
    keys.replace(vec![PublicKey::new("key-1", Algorithm::Es256, pair.public_key().as_ref()).expect("a public key")]);
    let claims = serde_json::to_value(claims(clock.now())).expect("claims as JSON");
    let good = GoodToken {
        key: pair.to_pkcs8v1().expect("PKCS#8").as_ref().to_vec(),
        kid: "key-1".to_owned(),
        claims: claims.as_object().expect("an object").clone(),
    };
    let config = TokenVerifierConfig::new(ISSUER, "drystone");
    let revocations = RevocationView::new(clock.clone());
    revocations.apply(&[]);
    let verifier = TokenVerifier::new(config, keys, revocations, clock);
    Fixture { verifier, good }
}

fn claims(now: Timestamp) -> Claims {
    Claims {
        iss: ISSUER.to_owned(),
        aud: "drystone".to_owned(),
        sub: "01957a3c-8f1e-7b52-9c0d-3e4f5a6b7c8d".parse().expect("a UUID"),
        sid: "01957a3c-9f2e-7b52-8c0d-3e4f5a6b7c8e".parse().expect("a UUID"),
        jti: id::v7_at(now),
        client_id: Some("drystone".to_owned()),
        iat: now.timestamp(),
        exp: (now + TimeDelta::minutes(5)).timestamp(),
        nbf: None,
        auth_time: (now - TimeDelta::hours(3)).timestamp(),
        amr: vec!["pwd".to_owned()],
        roles: vec!["member".to_owned()],
        perms: vec![],
        props: [("01957a3c-7a1e-7b52-9c0d-3e4f5a6b7c8f".to_owned(), "owner".to_owned())].into(),
    }
}

/// Each is refused at first and refused again, and the good token is accepted before and after: nothing of a bad token
/// is remembered.
fn refused(make: impl Fn(&GoodToken) -> Vec<BadToken>, by: &[TokenError]) {
    let Fixture { verifier, good } = fixture();
    let token = good.token();
    verifier.verify(&token).expect("the good token");
    for BadToken { name, token: bad } in make(&good) {
        let outcome = verifier.verify(&bad).map(drop);
        assert!(outcome.is_err_and(|error| by.contains(&error)), "{name}: {outcome:?} for {bad}");
        assert_eq!(verifier.verify(&bad).map(drop), outcome, "{name}");
        verifier.verify(&token).expect("the good token, still");
    }
}

#[test]
fn a_valid_token_is_accepted_with_its_principal() {
    let Fixture { verifier, good } = fixture();
    let principal = verifier.verify(&good.token()).expect("the good token");
    assert_eq!(principal.user_id.to_string(), good.claims["sub"]);
    assert_eq!(principal.session_id.to_string(), good.claims["sid"]);
    assert_eq!(principal.token_id.to_string(), good.claims["jti"]);
    assert_eq!(principal.issued_at.to_rfc3339(), "2026-03-01T12:00:00.123+00:00");
    assert_eq!(principal.expires_at.to_rfc3339(), "2026-03-01T12:05:00+00:00");
    assert_eq!(principal.auth_time.to_rfc3339(), "2026-03-01T09:00:00+00:00");
    assert_eq!(principal.roles, ["member"]);
    assert_eq!(principal.properties["01957a3c-7a1e-7b52-9c0d-3e4f5a6b7c8f"], "owner");
    assert!(!principal.has_permission("users:read"));
}

#[test]
fn the_table_of_bad_tokens_has_no_duplicate_names() {
    let tokens = bad_tokens::bad_tokens(&fixture().good);
    let mut names = HashSet::new();
    for bad in &tokens {
        assert!(names.insert(&bad.name), "duplicate name {}", bad.name);
        assert!(http::HeaderValue::from_str(&format!("Bearer {}", bad.token)).is_ok(), "{} cannot be sent", bad.name);
    }
    assert!(tokens.len() >= 250, "{} bad tokens", tokens.len());
}

#[test]
fn a_token_of_invalid_shape_is_rejected() {
    refused(bad_tokens::bad_shapes, &[TokenError::TooLong, TokenError::Segments, TokenError::Encoding]);
}

#[test]
fn a_token_with_an_invalid_header_is_rejected() {
    use TokenError::{Algorithm, Header, Type, UnknownKey};
    refused(bad_tokens::bad_headers, &[Header, Type, UnknownKey, Algorithm]);
}

#[test]
fn a_token_with_an_invalid_signature_is_rejected() {
    refused(bad_tokens::bad_signatures, &[TokenError::Signature]);
}

#[test]
fn a_token_with_invalid_claims_is_rejected() {
    use TokenError::{Audience, Claims, Expired, Issuer, Lifetime, NotYetValid};
    refused(bad_tokens::bad_claims, &[Claims, Issuer, Audience, Lifetime, NotYetValid, Expired]);
}

/// These cannot be sent in an HTTP header, or would be mended on the way.
#[test]
fn a_token_with_surrounding_characters_is_rejected() {
    let Fixture { verifier, good } = fixture();
    let token = good.token();
    for extra in [" ", "\n", "\r\n", "\t", "\0", "\u{feff}", "\u{200b}", "é", "Bearer "] {
        let inside = token.replacen('.', &format!(".{extra}"), 1);
        for bad in [format!("{extra}{token}"), format!("{token}{extra}"), inside] {
            assert_eq!(verifier.verify(&bad), Err(TokenError::Encoding), "{bad:?}");
        }
    }
    for bad in ["", " ", "\u{1f511}", "…", "\0"] {
        assert_eq!(verifier.verify(bad), Err(TokenError::Segments), "{bad:?}");
    }
}

/// The verifier remembers the good token all the while.
#[test]
fn a_token_with_one_changed_character_or_truncated_is_rejected() {
    let Fixture { verifier, good } = fixture();
    let token = good.token();
    verifier.verify(&token).expect("the good token");
    for at in 0..token.len() {
        for other in ["A", "-", ".", "="] {
            let mut bad = token.clone();
            bad.replace_range(at..=at, other);
            assert!(bad == token || verifier.verify(&bad).is_err(), "{other} at {at}");
        }
        assert!(verifier.verify(&token[..at]).is_err(), "cut at {at}");
    }
}

proptest! {
    #[test]
    fn no_random_text_verifies_or_panics(text in ".{0,200}") {
        prop_assert!(fixture().verifier.verify(&text).is_err());
    }

    #[test]
    fn no_token_like_text_verifies_or_panics(text in "[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{86}") {
        prop_assert!(fixture().verifier.verify(&text).is_err());
    }

    #[test]
    fn no_bytes_after_a_valid_header_verify_or_panic(payload: Vec<u8>, signature: Vec<u8>) {
        let Fixture { verifier, good } = fixture();
        let token = good.token();
        let (header, _) = token.split_once('.').expect("a header");
        let text = format!("{header}.{}.{}", URL_SAFE_NO_PAD.encode(payload), URL_SAFE_NO_PAD.encode(signature));
        prop_assert!(verifier.verify(&text).is_err());
    }
}
