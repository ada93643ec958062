//! The rate limit of sign-ins per account.

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
