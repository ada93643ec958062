//! Registration, and what is left when it goes wrong half-way.

use drystone_mesh::error::{Reason, reason_of};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::{
    fake::Mishap,
    fixture::{EMAIL, Fixture, PASSWORD},
};

async fn has_credential(fixture: &Fixture, request_id: &str) -> bool {
    fixture.store.resume_credential(request_id.parse().unwrap(), fixture.clock.now()).await.unwrap().is_some()
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

#[tokio::test]
async fn who_has_registered_can_sign_in() {
    let fixture = Fixture::new().await;
    let user = fixture.register(EMAIL, PASSWORD, "").await.unwrap();
    let answer = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    assert_eq!(answer.user_id, user.id);
}

#[tokio::test]
async fn a_taken_address_leaves_no_credential_behind() {
    let fixture = Fixture::with_account().await;
    let id = new_id();
    let status = fixture.register(EMAIL, "another horse", &id).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::EmailTaken));
    assert!(!has_credential(&fixture, &id).await);
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn what_the_user_service_refuses_is_named_and_leaves_no_credential_behind() {
    let fixture = Fixture::new().await;
    let id = new_id();
    fixture.upstreams.world().next_creation = Some(Mishap::Refused);
    let status = fixture.register(EMAIL, PASSWORD, &id).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::InvalidRequest));
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "display_name");
    assert!(!has_credential(&fixture, &id).await);
}

#[tokio::test]
async fn a_response_that_breaks_the_contract_of_an_older_release_is_passed_on_and_the_credential_stays() {
    let fixture = Fixture::new().await;
    let id = new_id();
    fixture.upstreams.world().next_creation = Some(Mishap::LongName);
    let user = fixture.register(EMAIL, PASSWORD, &id).await.unwrap();
    assert_eq!(user.display_name, "x".repeat(201));
    assert!(has_credential(&fixture, &id).await);
    assert_eq!(fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner().user_id, user.id);
}

#[tokio::test]
async fn the_same_registration_again_answers_the_same_account() {
    let fixture = Fixture::new().await;
    let id = new_id();
    let first = fixture.register(EMAIL, PASSWORD, &id).await.unwrap();
    let second = fixture.register(EMAIL, PASSWORD, &id).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(fixture.upstreams.world().users.len(), 1);
}

#[tokio::test]
async fn a_request_id_with_another_password_is_refused() {
    let fixture = Fixture::new().await;
    let id = new_id();
    fixture.register(EMAIL, PASSWORD, &id).await.unwrap();
    let status = fixture.register(EMAIL, "another horse", &id).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::RequestIdReused));
}

#[tokio::test]
async fn a_registration_whose_answer_was_lost_goes_on_where_it_was() {
    for mishap in [Mishap::Away, Mishap::AnswerLost] {
        let fixture = Fixture::new().await;
        let id = new_id();
        fixture.upstreams.world().next_creation = Some(mishap);
        let status = fixture.register(EMAIL, PASSWORD, &id).await.unwrap_err();
        assert_eq!(reason_of(&status), Some(Reason::Unavailable));
        assert!(has_credential(&fixture, &id).await);

        let user = fixture.register(EMAIL, PASSWORD, &id).await.unwrap();
        assert_eq!(fixture.upstreams.world().users.len(), 1);
        assert_eq!(fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner().user_id, user.id);
    }
}

#[tokio::test]
async fn a_repeated_registration_never_takes_an_accounts_credential_away() {
    let fixture = Fixture::new().await;
    let id = new_id();
    fixture.register("grace@example.com", "grace's horse", "").await.unwrap();
    fixture.register(EMAIL, PASSWORD, &id).await.unwrap();

    let status = fixture.register("grace@example.com", PASSWORD, &id).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::EmailTaken));
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn the_same_registration_twice_at_once_makes_one_account() {
    let fixture = Fixture::new().await;
    let id = new_id();
    let (first, second) = tokio::join!(fixture.register(EMAIL, PASSWORD, &id), fixture.register(EMAIL, PASSWORD, &id));
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(fixture.upstreams.world().users.len(), 1);
}
