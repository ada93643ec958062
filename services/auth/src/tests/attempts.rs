//! How often somebody may try.

use drystone_mesh::error::Reason;
use tonic::Code;
use tonic_types::StatusExt;

use super::{
    fixture::{EMAIL, Fixture, PASSWORD},
    refusal,
};

#[tokio::test]
async fn an_account_is_tried_so_often_from_wherever_and_then_nothing_is_hashed_for_it() {
    let fixture = Fixture::limited(3).await;
    fixture.register(EMAIL, PASSWORD, "").await.unwrap();
    for (number, spelling) in [EMAIL, " ADA@example.com ", EMAIL].into_iter().enumerate() {
        let outcome = fixture.sign_in_from(&format!("192.0.2.{number}"), spelling, "wrong horse").await;
        assert_eq!(refusal(outcome), Reason::InvalidCredentials);
    }
    fixture.upstreams.world().calls.clear();
    let refused = fixture.sign_in_from("192.0.2.99", EMAIL, PASSWORD).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let delay = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(delay.as_secs_f64() > 10.0 && delay.as_secs_f64() <= 20.0, "{delay:?}");
    assert_eq!(refusal::<()>(Err(refused)), Reason::RateLimited);
    assert!(fixture.upstreams.world().calls.is_empty(), "nobody was asked");
    assert!(fixture.shows("drystone_hashing_seconds_count 4"), "one to register, three to check");
    assert!(fixture.shows(r#"drystone_rate_limited_total{limit="sign_in_account"} 1"#));

    // Without an entry point there is no address; the account limit applies all the same.
    assert_eq!(refusal(fixture.sign_in_from("", EMAIL, PASSWORD).await), Reason::RateLimited);
}
