//! The rate limits of sign-ins and refreshes.

use drystone_mesh::error::Reason;
use tonic::Code;
use tonic_types::StatusExt;

use super::{
    fixture::{EMAIL, Fixture, PASSWORD},
    reason,
};

#[tokio::test]
async fn sign_ins_to_an_account_are_limited_across_addresses_before_hashing() {
    let fixture = Fixture::limited(3).await;
    fixture.register(EMAIL, PASSWORD, "").await.unwrap();
    for (number, spelling) in [EMAIL, " ADA@example.com ", EMAIL].into_iter().enumerate() {
        let outcome = fixture.sign_in_from(&format!("192.0.2.{number}"), spelling, "wrong horse").await;
        assert_eq!(reason(outcome), Reason::InvalidCredentials);
    }
    fixture.upstreams.state().calls.clear();
    let status = fixture.sign_in_from("192.0.2.99", EMAIL, PASSWORD).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(delay.as_secs_f64() > 10.0 && delay.as_secs_f64() <= 20.0, "{delay:?}");
    assert_eq!(reason::<()>(Err(status)), Reason::RateLimited);
    assert!(fixture.upstreams.state().calls.is_empty(), "an upstream was called");
    assert!(fixture.has_metric("drystone_password_hash_duration_seconds_count 4"), "one to register, three to check");
    assert!(fixture.has_metric(r#"drystone_rate_limited_total{limit="sign_in_account"} 1"#));

    // A call that did not come through an entry point has no client address; the account's limit applies.
    assert_eq!(reason(fixture.sign_in_from("", EMAIL, PASSWORD).await), Reason::RateLimited);
}

#[tokio::test]
async fn a_right_password_does_not_count_against_the_account() {
    let fixture = Fixture::limited(3).await;
    fixture.register(EMAIL, PASSWORD, "").await.unwrap();
    let wrong =
        async |number: usize| reason(fixture.sign_in_from(&format!("192.0.2.{number}"), EMAIL, "wrong horse").await);
    assert_eq!(wrong(1).await, Reason::InvalidCredentials);
    assert_eq!(wrong(2).await, Reason::InvalidCredentials);
    for number in 10..20 {
        fixture.sign_in_from(&format!("192.0.2.{number}"), EMAIL, PASSWORD).await.unwrap();
    }
    // It does not clear the failures of others either.
    assert_eq!(wrong(3).await, Reason::InvalidCredentials);
    assert_eq!(wrong(4).await, Reason::RateLimited);
}

#[tokio::test]
async fn each_sign_in_counts_against_its_address() {
    let fixture = Fixture::limited(3).await;
    fixture.register(EMAIL, PASSWORD, "").await.unwrap();
    for _ in 0..3 {
        fixture.sign_in_from("192.0.2.9", EMAIL, PASSWORD).await.unwrap();
    }
    assert_eq!(reason(fixture.sign_in_from("192.0.2.9", EMAIL, PASSWORD).await), Reason::RateLimited);
    assert!(fixture.has_metric(r#"drystone_rate_limited_total{limit="sign_in_address"} 1"#));
}

#[tokio::test]
async fn a_known_device_signs_in_while_strangers_guess() {
    let fixture = Fixture::limited(5).await;
    fixture.register(EMAIL, PASSWORD, "").await.unwrap();
    let device = fixture.sign_in_on("192.0.2.1", PASSWORD, "").await.unwrap();
    let mut guesses = 0;
    while reason(fixture.sign_in_from(&format!("198.51.100.{guesses}"), EMAIL, "wrong horse").await)
        != Reason::RateLimited
    {
        guesses += 1;
    }
    // A new device of the owner is locked out, the known one is not.
    assert_eq!(reason(fixture.sign_in_on("192.0.2.1", PASSWORD, "").await), Reason::RateLimited);
    let again = fixture.sign_in_on("192.0.2.1", PASSWORD, &device).await.unwrap();
    fixture.sign_in_on("192.0.2.1", PASSWORD, &again).await.unwrap();
    // Its own guesses are limited, also with a renewed token.
    for _ in 0..3 {
        assert_eq!(reason(fixture.sign_in_on("192.0.2.1", "wrong horse", &again).await), Reason::InvalidCredentials);
    }
    assert_eq!(reason(fixture.sign_in_on("203.0.113.7", PASSWORD, &device).await), Reason::RateLimited);
    assert!(fixture.has_metric(r#"drystone_rate_limited_total{limit="sign_in_device"} 1"#));
}

#[tokio::test]
async fn the_known_devices_of_an_account_have_a_limit_together() {
    let fixture = Fixture::limited(2).await;
    fixture.register(EMAIL, PASSWORD, "").await.unwrap();
    let mut devices = Vec::new();
    for number in 0..8 {
        devices.push(fixture.sign_in_on(&format!("192.0.2.{number}"), PASSWORD, "").await.unwrap());
    }
    let mut passed = 0;
    for device in &devices {
        passed += u32::from(fixture.sign_in_on("192.0.2.1", PASSWORD, device).await.is_ok());
    }
    assert_eq!(passed, 6, "three times the limit of one");
}

#[tokio::test]
async fn a_repeated_registration_counts_as_a_guess() {
    let fixture = Fixture::limited(3).await;
    let request_id = uuid::Uuid::now_v7().to_string();
    fixture.register(EMAIL, PASSWORD, &request_id).await.unwrap();
    for _ in 0..3 {
        let guess = fixture.register(EMAIL, "another horse", &request_id).await;
        assert_eq!(reason(guess), Reason::RequestIdReused);
    }
    assert_eq!(reason(fixture.register(EMAIL, "another horse", &request_id).await), Reason::RateLimited);
}

#[tokio::test]
async fn refreshes_of_a_session_are_limited() {
    let fixture = Fixture::limited(3).await;
    fixture.register(EMAIL, PASSWORD, "").await.unwrap();
    let [session, other] = [(); 2].map(|()| fixture.sign_in(EMAIL, PASSWORD));
    let (session, other) = (session.await.unwrap().into_inner(), other.await.unwrap().into_inner());
    for _ in 0..3 {
        let _ = fixture.refresh(&session.refresh_token).await;
    }
    assert_eq!(reason(fixture.refresh(&session.refresh_token).await), Reason::RateLimited);
    fixture.refresh(&other.refresh_token).await.unwrap();
}
