//! Registration, and its partial failures.

use drystone_mesh::error::{Reason, reason_of};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::{
    fake::CreationFailure,
    fixture::{EMAIL, Fixture, PASSWORD},
};

async fn has_credential(fixture: &Fixture, request_id: &str) -> bool {
    fixture.store.resume_credential(request_id.parse().unwrap(), fixture.clock.now()).await.unwrap().is_some()
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

#[tokio::test]
async fn a_registered_user_can_sign_in() {
    let fixture = Fixture::new().await;
    let user = fixture.register(EMAIL, PASSWORD, "").await.unwrap();
    let response = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    assert_eq!(response.user_id, user.id);
}

#[tokio::test]
async fn a_taken_email_address_leaves_no_credential() {
    let fixture = Fixture::with_account().await;
    let id = new_id();
    let status = fixture.register(EMAIL, "another horse", &id).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::EmailTaken));
    assert!(!has_credential(&fixture, &id).await);
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_field_that_the_user_service_rejects_is_reported_and_leaves_no_credential() {
    let fixture = Fixture::new().await;
    let id = new_id();
    fixture.upstreams.state().next_creation_failure = Some(CreationFailure::Rejected);
    let status = fixture.register(EMAIL, PASSWORD, &id).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::InvalidRequest));
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "display_name");
    assert!(!has_credential(&fixture, &id).await);
}

#[tokio::test]
async fn a_response_that_violates_this_releases_contract_is_passed_on_and_the_credential_kept() {
    let fixture = Fixture::new().await;
    let id = new_id();
    fixture.upstreams.state().next_creation_failure = Some(CreationFailure::LongName);
    let user = fixture.register(EMAIL, PASSWORD, &id).await.unwrap();
    assert_eq!(user.display_name, "x".repeat(201));
    assert!(has_credential(&fixture, &id).await);
    assert_eq!(fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner().user_id, user.id);
}

#[tokio::test]
async fn a_retried_registration_returns_the_same_account() {
    let fixture = Fixture::new().await;
    let id = new_id();
    let first = fixture.register(EMAIL, PASSWORD, &id).await.unwrap();
    let second = fixture.register(EMAIL, PASSWORD, &id).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(fixture.upstreams.state().users.len(), 1);
}

#[tokio::test]
async fn a_request_id_with_another_password_is_rejected() {
    let fixture = Fixture::new().await;
    let id = new_id();
    fixture.register(EMAIL, PASSWORD, &id).await.unwrap();
    let status = fixture.register(EMAIL, "another horse", &id).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::RequestIdReused));
}

#[tokio::test]
async fn a_failed_registration_is_resumed_by_its_request_id() {
    for failure in [CreationFailure::Unavailable, CreationFailure::ResponseLost] {
        let fixture = Fixture::new().await;
        let id = new_id();
        fixture.upstreams.state().next_creation_failure = Some(failure);
        let status = fixture.register(EMAIL, PASSWORD, &id).await.unwrap_err();
        assert_eq!(reason_of(&status), Some(Reason::Unavailable));
        assert!(has_credential(&fixture, &id).await);

        let user = fixture.register(EMAIL, PASSWORD, &id).await.unwrap();
        assert_eq!(fixture.upstreams.state().users.len(), 1);
        assert_eq!(fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner().user_id, user.id);
    }
}

#[tokio::test]
async fn a_retried_registration_does_not_delete_the_credential_of_an_account() {
    let fixture = Fixture::new().await;
    let id = new_id();
    fixture.register("grace@example.com", "grace's horse", "").await.unwrap();
    fixture.register(EMAIL, PASSWORD, &id).await.unwrap();

    let status = fixture.register("grace@example.com", PASSWORD, &id).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::EmailTaken));
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn concurrent_registrations_with_one_request_id_create_one_account() {
    let fixture = Fixture::new().await;
    let id = new_id();
    let (first, second) = tokio::join!(fixture.register(EMAIL, PASSWORD, &id), fixture.register(EMAIL, PASSWORD, &id));
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(fixture.upstreams.state().users.len(), 1);
}
