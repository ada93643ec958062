//! Refreshing.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use drystone_mesh::error::Reason;

use super::{
    fake::Condition,
    fixture::{EMAIL, Fixture, PASSWORD},
    refusal,
};

#[tokio::test]
async fn a_refresh_makes_a_token_with_the_roles_of_today() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.clock.advance(Duration::from_hours(1));
    fixture.upstreams.world().roles = vec!["admin".to_owned()];

    let second = fixture.refresh(&first.refresh_token).await.unwrap().into_inner();
    assert_eq!((&second.session_id, &second.user_id), (&first.session_id, &first.user_id));
    assert_ne!(second.refresh_token, first.refresh_token);
    let principal = fixture.verify(&second.access_token).await;
    assert_eq!(principal.roles, ["admin"]);
    assert_eq!(principal.properties["a-property"], "owner");
    assert_eq!(fixture.clock.now().timestamp() - principal.auth_time.timestamp(), 3600, "it is no new proof");

    fixture.refresh(&second.refresh_token).await.unwrap();
}

#[tokio::test]
async fn a_damaged_token_is_refused_before_anybody_is_asked() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.upstreams.world().calls.clear();
    for bad in ["", "x", &first.access_token, &first.refresh_token[1..], &format!("{}=", first.refresh_token)] {
        assert_eq!(refusal(fixture.refresh(bad).await), Reason::RefreshTokenInvalid, "{bad}");
    }
    let sealed = BASE64_URL_SAFE_NO_PAD.decode(&first.refresh_token).unwrap();
    for place in 0..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[place] ^= 1;
        let damaged = BASE64_URL_SAFE_NO_PAD.encode(damaged);
        assert_eq!(refusal(fixture.refresh(&damaged).await), Reason::RefreshTokenInvalid, "byte {place}");
    }
    assert!(fixture.upstreams.world().calls.is_empty());
    fixture.refresh(&first.refresh_token).await.unwrap();
}

#[tokio::test]
async fn what_the_session_service_says_of_a_token_is_what_the_client_hears() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.refresh(&first.refresh_token).await.unwrap();
    assert_eq!(refusal(fixture.refresh(&first.refresh_token).await), Reason::RefreshTokenReused);
    fixture.upstreams.world().sessions.clear();
    assert_eq!(refusal(fixture.refresh(&first.refresh_token).await), Reason::SessionEnded);
}

#[tokio::test]
async fn an_outage_of_the_user_service_uses_no_refresh_token_up() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.upstreams.world().user_service = Condition::Down;
    fixture.upstreams.world().calls.clear();
    assert_eq!(refusal(fixture.refresh(&first.refresh_token).await), Reason::Unavailable);
    assert!(!fixture.upstreams.world().calls.contains(&"rotate_session"));

    // Long after the time in which a token may be presented again.
    fixture.clock.advance(Duration::from_hours(1));
    fixture.upstreams.world().user_service = Condition::Up;
    fixture.refresh(&first.refresh_token).await.unwrap();
}

#[tokio::test]
async fn a_session_whose_account_is_gone_is_over() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.upstreams.world().users.clear();
    fixture.upstreams.world().calls.clear();
    assert_eq!(refusal(fixture.refresh(&first.refresh_token).await), Reason::SessionEnded);
    assert!(!fixture.upstreams.world().calls.contains(&"rotate_session"));
}

#[tokio::test]
async fn a_token_of_another_user_than_the_sessions_is_refused() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    for session in fixture.upstreams.world().sessions.values_mut() {
        session.user_id = uuid::Uuid::now_v7();
    }
    assert_eq!(refusal(fixture.refresh(&first.refresh_token).await), Reason::RefreshTokenInvalid);
}

#[tokio::test]
async fn a_refresh_goes_without_property_claims_while_that_service_is_away() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.upstreams.world().property_service = Condition::Down;
    let second = fixture.refresh(&first.refresh_token).await.unwrap().into_inner();
    assert!(fixture.verify(&second.access_token).await.properties.is_empty());
    assert!(fixture.shows("drystone_refresh_without_property_claims_total 1"));
}

#[tokio::test]
async fn refresh_tokens_outlive_a_restart() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let fixture = fixture.restart(super::fixture::cheap()).await;
    fixture.refresh(&first.refresh_token).await.unwrap();
}
