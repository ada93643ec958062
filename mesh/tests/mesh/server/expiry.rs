//! Certificates that expire during a connection: both ends check on each call.

use std::time::Duration;

use drystone_mesh::{
    clock::{Clock, Timestamp},
    error::{Error, Reason, reason_of},
    identity::{Denylist, Identity, IssueOptions, RotationStep},
    server::ServerLimits,
};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};
use tonic_types::StatusExt;

use super::{TestServer, http2, order};

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

    server.own.replace(server.authority.issue("user").unwrap().read().unwrap()).unwrap();
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

    identity.replace(server.authority.issue("auth").unwrap().read().unwrap()).unwrap();
    client.look_up_for_sign_in(order("describe")).await.unwrap();
}

#[tokio::test]
async fn a_rejected_own_certificate_is_unavailable_for_the_caller() {
    // The server's clock is ahead of the client's.
    let server = TestServer::build(|limits| limits, Clock::manual(Clock::system().now() + 2 * HOUR), None).await;
    let mut client = server.client_with(caller(&server, in_an_hour()), Clock::system());
    assert_unavailable(client.look_up_for_sign_in(order("describe")).await.unwrap_err());
    assert!(look_ups(&server) < 0.5, "the server has refused the connection");
}

#[tokio::test]
async fn a_connection_is_replaced_at_its_maximum_age_without_a_failed_call() {
    let age = Some(Duration::from_millis(300));
    let server = TestServer::with(|limits| ServerLimits { max_connection_age: age, ..limits }).await;
    let sender = http2::connect(&server).await;
    let mut client = server.client("auth");
    let replaced = async {
        // Closed when the server has said GOAWAY.
        while !sender.is_closed() {
            client.look_up_for_sign_in(order("describe")).await.unwrap();
        }
    };
    timeout(Duration::from_secs(20), replaced).await.expect("the connection is closed");
    for _ in 0..100 {
        client.look_up_for_sign_in(order("describe")).await.unwrap();
    }
}

/// A stream with its first response.
async fn open_stream(server: &TestServer, identity: Identity, clock: Clock) -> Streaming<HealthCheckResponse> {
    let mut client = HealthClient::new(server.channel_with(identity, clock));
    let request = HealthCheckRequest { service: String::new() };
    let mut stream = client.watch(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    stream
}

async fn assert_ends(mut stream: Streaming<HealthCheckResponse>) {
    let ended = async { while let Ok(Some(_)) = stream.message().await {} };
    timeout(Duration::from_secs(20), ended).await.expect("the stream ends");
}

/// Replaces an identity by one of a new root, and removes the old one.
fn remove_root(server: &mut TestServer, name: &str, identity: &Identity) {
    for step in [RotationStep::Add, RotationStep::Issue, RotationStep::Remove] {
        server.authority.rotate(step).unwrap();
    }
    assert!(identity.replace(server.authority.issue(name).unwrap().read().unwrap()).unwrap());
}

/// Lets the time of a call pass, again and again: when the removal of the root is noticed, and after that.
async fn pass_time(identity: &Identity, clock: &Clock) {
    loop {
        clock.advance(Duration::from_secs(66));
        // A change of any kind has the time looked at.
        identity.set_denylist(Denylist::default());
        identity.set_denylist(Denylist::parse(b"aa").unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_ends_connections_after_a_root_was_removed() {
    let clock = Clock::manual(Clock::system().now());
    let mut server = TestServer::build(|limits| limits, clock.clone(), None).await;
    let stream = open_stream(&server, server.identity("auth"), Clock::system()).await;
    let own = server.own.clone();
    remove_root(&mut server, "user", &own);
    tokio::select! {
        () = assert_ends(stream) => {}
        () = pass_time(&own, &clock) => {}
    }
}

#[tokio::test]
async fn a_client_ends_connections_after_a_root_was_removed() {
    let mut server = TestServer::new().await;
    let (identity, clock) = (server.identity("auth"), Clock::manual(Clock::system().now()));
    let stream = open_stream(&server, identity.clone(), clock.clone()).await;
    remove_root(&mut server, "auth", &identity);
    tokio::select! {
        () = assert_ends(stream) => {}
        () = pass_time(&identity, &clock) => {}
    }
}
