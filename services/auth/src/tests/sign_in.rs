//! Sign-in.

use std::time::Duration;

use drystone::user::v1::User;
use drystone_mesh::error::Reason;
use uuid::Uuid;

use super::{
    fake::Availability,
    fixture::{EMAIL, Fixture, PASSWORD, fast_hashing},
    reason,
};
use crate::config::PasswordConfig;

#[tokio::test]
async fn only_who_knows_the_password_learns_that_an_account_is_disabled() {
    let fixture = Fixture::with_account().await;
    let token = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner().refresh_token;
    fixture.upstreams.state().is_disabled = true;
    let reason = |status: tonic::Status| drystone_mesh::error::reason_of(&status);
    let disabled = fixture.sign_in(EMAIL, PASSWORD).await.unwrap_err();
    assert_eq!(reason(disabled), Some(drystone::Reason::AccountDisabled));
    let wrong = fixture.sign_in(EMAIL, "wrong password").await.unwrap_err();
    assert_eq!(reason(wrong), Some(drystone::Reason::InvalidCredentials));
    assert_eq!(reason(fixture.refresh(&token).await.unwrap_err()), Some(drystone::Reason::SessionEnded));
    fixture.upstreams.state().is_disabled = false;
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_correct_password_starts_a_session_and_returns_tokens() {
    let fixture = Fixture::with_account().await;
    let response = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    assert_eq!(response.token_type, "Bearer");
    assert_eq!(response.expires_in, 300);

    let principal = fixture.verify(&response.access_token).await;
    assert_eq!(principal.user_id.to_string(), response.user_id);
    assert_eq!(principal.session_id.to_string(), response.session_id);
    assert_eq!(principal.properties["a-property"], "owner");
    assert!(fixture.upstreams.state().sessions.contains_key(&principal.session_id));
}

#[tokio::test]
async fn an_unknown_email_address_and_a_wrong_password_are_indistinguishable() {
    let fixture = Fixture::with_account().await;

    let wrong = fixture.sign_in(EMAIL, "wrong horse").await.unwrap_err();
    let calls_of_wrong = std::mem::take(&mut fixture.upstreams.state().calls);
    assert!(fixture.has_metric("drystone_password_hash_duration_seconds_count 2"), "one to register, one to check");

    let unknown = fixture.sign_in("nobody@example.com", PASSWORD).await.unwrap_err();
    let calls_of_unknown = std::mem::take(&mut fixture.upstreams.state().calls);
    assert!(fixture.has_metric("drystone_password_hash_duration_seconds_count 3"));

    let no_address = fixture.sign_in("nobody", PASSWORD).await.unwrap_err();
    let calls_of_no_address = std::mem::take(&mut fixture.upstreams.state().calls);
    assert!(fixture.has_metric("drystone_password_hash_duration_seconds_count 4"));

    assert_eq!(
        (wrong.code(), wrong.message(), wrong.details()),
        (unknown.code(), unknown.message(), unknown.details())
    );
    assert_eq!((no_address.code(), no_address.message()), (unknown.code(), unknown.message()));
    assert_eq!(calls_of_wrong, calls_of_unknown);
    assert_eq!(calls_of_no_address, ["account_by_id", "property_claims"], "the same calls, with a dummy user id");
    assert_eq!(calls_of_unknown, ["account_by_email", "property_claims"]);
    assert_eq!(reason::<()>(Err(wrong)), Reason::InvalidCredentials);
    assert!(fixture.upstreams.state().sessions.is_empty());
}

#[tokio::test]
async fn an_account_without_a_credential_cannot_sign_in() {
    let fixture = Fixture::new().await;
    let user = User { id: Uuid::now_v7().to_string(), email: EMAIL.to_owned(), ..User::default() };
    fixture.upstreams.state().users.insert(user.id.parse().unwrap(), user);
    assert_eq!(reason(fixture.sign_in(EMAIL, PASSWORD).await), Reason::InvalidCredentials);
}

#[tokio::test]
async fn a_sign_in_succeeds_without_property_claims_while_the_property_service_is_unavailable() {
    for availability in [Availability::Down, Availability::Hanging] {
        let fixture = Fixture::with_account().await;
        fixture.upstreams.state().property_service = availability;
        let response = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
        assert!(fixture.verify(&response.access_token).await.properties.is_empty());
        assert!(fixture.has_metric("drystone_sign_ins_without_property_claims_total 1"), "{availability:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_not_counted_as_a_sign_in_without_property_claims() {
    let fixture = Fixture::with_account().await;
    fixture.upstreams.state().property_service = Availability::Hanging;
    assert_eq!(reason(fixture.sign_in(EMAIL, "wrong horse").await), Reason::InvalidCredentials);
    assert!(fixture.has_metric("drystone_sign_ins_without_property_claims_total 0"));
}

#[tokio::test]
async fn a_hash_of_another_cost_is_replaced_at_sign_in() {
    let fixture = Fixture::with_account().await;
    let user_id = *fixture.upstreams.state().users.keys().next().unwrap();
    let expensive = PasswordConfig { memory_kib: 128, iterations: 2, parallelism: 1 };
    let fixture = fixture.restart(crate::Config { password: expensive, ..fast_hashing() }).await;
    let old = fixture.store.credential(user_id).await.unwrap().unwrap();

    assert_eq!(reason(fixture.sign_in(EMAIL, "wrong horse").await), Reason::InvalidCredentials);
    assert_eq!(fixture.store.credential(user_id).await.unwrap().unwrap(), old);

    // Skipped while the hashing threads are busy, so it may take more than one sign-in.
    let upgraded = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
            let current = fixture.store.credential(user_id).await.unwrap().unwrap();
            if current.password_hash != old.password_hash {
                return current;
            }
        }
    });
    let upgraded = upgraded.await.unwrap();
    assert!(upgraded.password_hash.as_str().starts_with("$argon2id$v=19$m=128,t=2,p=1$"));
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
}
