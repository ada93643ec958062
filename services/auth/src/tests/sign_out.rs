//! Sign-out.

use drystone_mesh::error::{Reason, reason_of};

use super::fixture::{EMAIL, Fixture, PASSWORD};

#[tokio::test]
async fn sign_out_ends_the_session_of_the_token() {
    let fixture = Fixture::with_account().await;
    let kept = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let left = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();

    let principal = fixture.verify(&left.access_token).await;
    fixture.sign_out(Some(principal)).await.unwrap();
    let sessions: Vec<_> = fixture.upstreams.state().sessions.keys().map(ToString::to_string).collect();
    assert_eq!(sessions, [kept.session_id]);
}

#[tokio::test]
async fn sign_out_requires_a_token() {
    let fixture = Fixture::new().await;
    let status = fixture.sign_out(None).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::TokenMissing));
}
