//! Access tokens, to the letter.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::fixture::{EMAIL, Fixture, ISSUER, PASSWORD};

fn segment(jwt: &str, number: usize) -> Value {
    let segment = jwt.split('.').nth(number).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_says_exactly_what_it_is_to_say() {
    let fixture = Fixture::with_account().await;
    fixture.neighbours.world().roles = vec!["member".to_owned()];
    let answer = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let kid = fixture.jwks().await[0].kid.clone();
    assert_eq!(segment(&answer.access_token, 0), json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid }));

    let claims = segment(&answer.access_token, 1);
    let now = fixture.clock.now().timestamp();
    let expected = json!({
        "iss": ISSUER,
        "aud": "drystone",
        "sub": answer.user_id,
        "sid": answer.session_id,
        "jti": claims["jti"],
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
async fn a_tokens_id_carries_its_issue_time_to_the_millisecond() {
    let fixture = Fixture::with_account().await;
    let answer = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let principal = fixture.verify(&answer.access_token).await;
    assert_eq!(principal.issued_at.timestamp_millis(), fixture.clock.now().timestamp_millis());
}

#[tokio::test]
async fn no_two_tokens_are_the_same() {
    let fixture = Fixture::with_account().await;
    let one = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let other = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    assert_ne!(segment(&one.access_token, 1)["jti"], segment(&other.access_token, 1)["jti"]);
    assert_ne!(one.refresh_token, other.refresh_token);
}

#[tokio::test]
async fn a_token_with_all_that_it_may_hold_stays_within_what_verifiers_take() {
    let fixture = Fixture::with_account().await;
    let session_id = uuid::Uuid::now_v7();
    let now = fixture.clock.now();
    let properties = (0..64).map(|_| (uuid::Uuid::now_v7().to_string(), "owner".to_owned())).collect();
    let grant = crate::token_maker::Grant {
        user_id: session_id,
        session_id,
        auth_time: now,
        as_of: now,
        roles: vec!["admin".to_owned(), "member".to_owned()],
        permissions: vec!["users:read".to_owned(), "users:write".to_owned()],
        properties,
    };
    let token = fixture.service.auth.sign_in.issuer.maker.make(grant).unwrap();
    assert!(token.jwt.len() < 8 * 1024, "{}", token.jwt.len());
    assert_eq!(fixture.verify(&token.jwt).await.properties.len(), 64);
}
