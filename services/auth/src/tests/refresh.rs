//! Refresh.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use drystone_mesh::error::Reason;

use super::{
    fake::Availability,
    fixture::{EMAIL, Fixture, PASSWORD},
    reason,
};

#[tokio::test]
async fn a_refresh_issues_a_token_with_the_current_roles() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.clock.advance(Duration::from_hours(1));
    fixture.upstreams.state().roles = vec!["admin".to_owned()];

    let second = fixture.refresh(&first.refresh_token).await.unwrap().into_inner();
    assert_eq!((&second.session_id, &second.user_id), (&first.session_id, &first.user_id));
    assert_ne!(second.refresh_token, first.refresh_token);
    let principal = fixture.verify(&second.access_token).await;
    assert_eq!(principal.roles, ["admin"]);
    assert_eq!(principal.properties["a-property"], "owner");
    assert_eq!(fixture.clock.now().timestamp() - principal.auth_time.timestamp(), 3600, "auth_time does not change");

    fixture.refresh(&second.refresh_token).await.unwrap();
}

#[tokio::test]
async fn an_invalid_token_is_rejected_without_calls_to_upstreams() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.upstreams.state().calls.clear();
    for bad in ["", "x", &first.access_token, &first.refresh_token[1..], &format!("{}=", first.refresh_token)] {
        assert_eq!(reason(fixture.refresh(bad).await), Reason::RefreshTokenInvalid, "{bad}");
    }
    let valid = BASE64_URL_SAFE_NO_PAD.decode(&first.refresh_token).unwrap();
    for index in 0..valid.len() {
        let mut modified = valid.clone();
        modified[index] ^= 1;
        let modified = BASE64_URL_SAFE_NO_PAD.encode(modified);
        assert_eq!(reason(fixture.refresh(&modified).await), Reason::RefreshTokenInvalid, "byte {index}");
    }
    assert!(fixture.upstreams.state().calls.is_empty());
    fixture.refresh(&first.refresh_token).await.unwrap();
}

#[tokio::test]
async fn refresh_token_reuse_and_ended_sessions_are_reported_to_the_client() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.refresh(&first.refresh_token).await.unwrap();
    assert_eq!(reason(fixture.refresh(&first.refresh_token).await), Reason::RefreshTokenReused);
    fixture.upstreams.state().sessions.clear();
    assert_eq!(reason(fixture.refresh(&first.refresh_token).await), Reason::SessionEnded);
}

#[tokio::test]
async fn an_outage_of_the_user_service_does_not_consume_the_refresh_token() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.upstreams.state().user_service = Availability::Down;
    fixture.upstreams.state().calls.clear();
    assert_eq!(reason(fixture.refresh(&first.refresh_token).await), Reason::Unavailable);
    assert!(!fixture.upstreams.state().calls.contains(&"rotate_session"));

    // Longer than the grace period in which a refresh token may be used again.
    fixture.clock.advance(Duration::from_hours(1));
    fixture.upstreams.state().user_service = Availability::Up;
    fixture.refresh(&first.refresh_token).await.unwrap();
}

#[tokio::test]
async fn a_refresh_fails_with_session_ended_after_the_account_is_deleted() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.upstreams.state().users.clear();
    fixture.upstreams.state().calls.clear();
    assert_eq!(reason(fixture.refresh(&first.refresh_token).await), Reason::SessionEnded);
    assert!(!fixture.upstreams.state().calls.contains(&"rotate_session"));
}

#[tokio::test]
async fn a_token_whose_user_is_not_the_sessions_is_rejected() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    for session in fixture.upstreams.state().sessions.values_mut() {
        session.user_id = uuid::Uuid::now_v7();
    }
    assert_eq!(reason(fixture.refresh(&first.refresh_token).await), Reason::RefreshTokenInvalid);
}

#[tokio::test]
async fn a_refresh_succeeds_without_property_claims_while_the_property_service_is_unavailable() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.upstreams.state().property_service = Availability::Down;
    let second = fixture.refresh(&first.refresh_token).await.unwrap().into_inner();
    assert!(fixture.verify(&second.access_token).await.properties.is_empty());
    assert!(fixture.has_metric("drystone_refreshes_without_property_claims_total 1"));
}

#[tokio::test]
async fn refresh_tokens_are_valid_after_a_restart() {
    let fixture = Fixture::with_account().await;
    let first = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let fixture = fixture.restart(super::fixture::fast_hashing()).await;
    fixture.refresh(&first.refresh_token).await.unwrap();
}
