//! Certificates that expire during a connection: both ends check on each call.

use std::time::Duration;

use drystone_mesh::{
    clock::{Clock, Timestamp},
    error::{Error, Reason, reason_of},
    identity::{Identity, IssueOptions},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{TestServer, order};

const HOUR: Duration = Duration::from_hours(1);

fn in_an_hour() -> Timestamp {
    Clock::system().now() + HOUR
}

/// The identity of `auth`, with a certificate that ends then.
fn caller(server: &TestServer, not_after: Timestamp) -> Identity {
    let options = IssueOptions { not_after: Some(not_after), ..IssueOptions::new("auth") };
    Identity::load(&server.authority.issue_with(&options).unwrap()).unwrap()
}

/// How many look-ups the server has counted.
fn look_ups(server: &TestServer) -> f64 {
    let text = server.metrics.render();
    let counts =
        text.lines().filter(|line| line.starts_with("drystone_calls_total") && line.contains("LookUpForSignIn"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Asserts the status for the caller, and the status that it propagates.
fn assert_unavailable(status: Status) {
    assert_eq!((status.code(), reason_of(&status)), (Code::Unavailable, None), "{status:?}");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    let handed_on = Status::from(Error::from(status));
    assert_eq!(reason_of(&handed_on), Some(Reason::Unavailable));
    assert!(handed_on.get_details_retry_info().unwrap().retry_delay.is_some());
    assert!(!handed_on.message().contains("certificate"), "{}", handed_on.message());
}

#[tokio::test]
async fn an_expired_server_certificate_fails_calls_on_an_open_connection() {
    let server = TestServer::build(|limits| limits, Clock::system(), Some(in_an_hour())).await;
    let clock = Clock::manual(Clock::system().now());
    let mut client = server.client_with(server.identity("auth"), clock.clone());
    client.look_up_for_sign_in(order("describe")).await.unwrap();
    clock.advance(2 * HOUR);
    assert_unavailable(client.look_up_for_sign_in(order("describe")).await.unwrap_err());
    assert!((look_ups(&server) - 1.0).abs() < 0.1, "the second was not sent");

    server.own.replace(&server.authority.issue("user").unwrap()).unwrap();
    client.look_up_for_sign_in(order("describe")).await.unwrap();
}

#[tokio::test]
async fn nothing_is_sent_with_an_expired_own_certificate() {
    let server = TestServer::new().await;
    let clock = Clock::manual(Clock::system().now());
    let identity = caller(&server, in_an_hour());
    let mut client = server.client_with(identity.clone(), clock.clone());
    client.look_up_for_sign_in(order("describe")).await.unwrap();
    clock.advance(2 * HOUR);
    assert_unavailable(client.look_up_for_sign_in(order("describe")).await.unwrap_err());
    assert!((look_ups(&server) - 1.0).abs() < 0.1, "the second was not sent");

    identity.replace(&server.authority.issue("auth").unwrap()).unwrap();
    client.look_up_for_sign_in(order("describe")).await.unwrap();
}

#[tokio::test]
async fn a_rejected_own_certificate_is_unavailable_for_the_caller() {
    // The server's clock is ahead of the client's.
    let server = TestServer::build(|limits| limits, Clock::manual(Clock::system().now() + 2 * HOUR), None).await;
    let mut client = server.client_with(caller(&server, in_an_hour()), Clock::system());
    assert_unavailable(client.look_up_for_sign_in(order("describe")).await.unwrap_err());
    assert!((look_ups(&server) - 1.0).abs() < 0.1, "the server has refused it");
}
