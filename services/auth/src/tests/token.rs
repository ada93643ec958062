//! The exact content of access tokens.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use drystone::auth::v1::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, errors::ErrorKind};
use serde_json::{Value, json};

use super::fixture::{EMAIL, Fixture, ISSUER, PASSWORD};

fn segment(jwt: &str, number: usize) -> Value {
    let segment = jwt.split('.').nth(number).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap()
}

#[tokio::test]
async fn an_access_token_has_exactly_the_documented_claims() {
    let fixture = Fixture::with_account().await;
    fixture.upstreams.state().roles = vec!["member".to_owned()];
    let response = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let kid = fixture.jwks().await[0].kid.clone();
    assert_eq!(segment(&response.access_token, 0), json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid }));

    let claims = segment(&response.access_token, 1);
    let now = fixture.clock.now().timestamp();
    let expected = json!({
        "iss": ISSUER,
        "aud": "drystone",
        "sub": response.user_id,
        "sid": response.session_id,
        "jti": claims["jti"],
        "client_id": "drystone",
        "iat": now,
        "exp": now + 300,
        "auth_time": now,
        "amr": ["pwd"],
        "roles": ["member"],
        "perms": ["users:read"],
        "props": { "a-property": "owner" },
    });
    assert_eq!(claims, expected);
}

#[tokio::test]
async fn a_token_is_not_valid_for_longer_than_the_roles_in_it() {
    let fixture = Fixture::with_account().await;
    for (seconds, lifetime) in [(1000, 300), (60, 60), (0, 1)] {
        let end = fixture.clock.now() + chrono::TimeDelta::seconds(seconds);
        fixture.upstreams.state().claims_expire_at = Some(end);
        let tokens = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
        let claims = segment(&tokens.access_token, 1);
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), lifetime, "{seconds}");
        assert_eq!(i64::from(tokens.expires_in), lifetime);
        fixture.verify(&tokens.access_token).await;
    }
}

/// All permissions of a mesh, and as many roles as a user may have: the properties give way.
#[tokio::test]
async fn a_token_that_would_be_too_large_has_no_properties() {
    let fixture = Fixture::with_account().await;
    let role = |number: usize| format!("{number:02}{}", "r".repeat(61));
    fixture.upstreams.state().roles = (0..16).map(role).collect();
    fixture.upstreams.state().permissions =
        (0..63).map(|number| format!("{number:02}{}:write", "p".repeat(54))).collect();
    let tokens = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let claims = segment(&tokens.access_token, 1);
    let size = serde_json::to_string(&claims["perms"]).unwrap().len();
    assert!((4000..=4096).contains(&size), "{size}");
    fixture.verify(&tokens.access_token).await;
    fixture.upstreams.state().many_properties = true;
    let tokens = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    assert_eq!(segment(&tokens.access_token, 1)["props"], json!({}));
    fixture.verify(&tokens.access_token).await;
}

#[tokio::test]
async fn the_jti_has_the_issue_time_to_the_millisecond() {
    let fixture = Fixture::with_account().await;
    let response = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let principal = fixture.verify(&response.access_token).await;
    assert_eq!(principal.issued_at.timestamp_millis(), fixture.clock.now().timestamp_millis());
}

#[tokio::test]
async fn two_sign_ins_have_different_tokens() {
    let fixture = Fixture::with_account().await;
    let one = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let other = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    assert_ne!(segment(&one.access_token, 1)["jti"], segment(&other.access_token, 1)["jti"]);
    assert_ne!(one.refresh_token, other.refresh_token);
}

#[tokio::test]
async fn a_token_with_the_maximum_of_claims_is_accepted_by_the_verifier() {
    let fixture = Fixture::with_account().await;
    let session_id = uuid::Uuid::now_v7();
    let now = fixture.clock.now();
    let properties = (0..64).map(|_| (uuid::Uuid::now_v7().to_string(), "owner".to_owned())).collect();
    let params = crate::token::access_token_signer::AccessTokenParams {
        user_id: session_id,
        session_id,
        auth_time: now,
        amr: vec!["pwd".to_owned()],
        as_of: now,
        roles: vec!["admin".to_owned(), "member".to_owned()],
        permissions: vec!["users:read".to_owned(), "users:write".to_owned()],
        claims_expire_at: None,
        properties,
    };
    let token = fixture.service.auth.sign_in.issuer.access_token_signer.sign(params).unwrap();
    assert!(token.jwt.len() < 8 * 1024, "{}", token.jwt.len());
    assert_eq!(fixture.verify(&token.jwt).await.properties.len(), 64);
}

/// A published key, as the `jsonwebtoken` library parses it.
fn decoding_key(jwk: &Jwk) -> DecodingKey {
    let Jwk { kty, r#use, alg, kid, crv, x, y, .. } = jwk;
    let jwk = json!({ "kty": kty, "use": r#use, "alg": alg, "kid": kid, "crv": crv, "x": x, "y": y });
    DecodingKey::from_jwk(&serde_json::from_value(jwk).unwrap()).unwrap()
}

#[tokio::test]
async fn a_third_party_library_verifies_tokens_with_the_published_keys() {
    let fixture = Fixture::with_account().await;
    let response = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let key = decoding_key(&fixture.jwks().await[0]);
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_audience(&["drystone"]);
    validation.set_issuer(&[ISSUER]);

    let token = decode::<Value>(&response.access_token, &key, &validation).unwrap();
    assert_eq!(token.header.typ.as_deref(), Some("at+jwt"));
    assert_eq!(token.claims["sub"], response.user_id);

    // The library rejects another key and another audience.
    let error_kind =
        |key: &_, validation: &_| decode::<Value>(&response.access_token, key, validation).unwrap_err().into_kind();
    let other_key = decoding_key(&Fixture::new().await.jwks().await[0]);
    assert!(matches!(error_kind(&other_key, &validation), ErrorKind::InvalidSignature));
    validation.set_audience(&["another"]);
    assert!(matches!(error_kind(&key, &validation), ErrorKind::InvalidAudience));
}
