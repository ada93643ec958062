//! Certificates that end while a connection stands: both ends see it with the next call.

use std::time::Duration;

use drystone_mesh::{
    clock::{Clock, Timestamp},
    error::{Error, Reason, reason_of},
    identity::{Identity, IssueOptions},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{World, order};

const HOUR: Duration = Duration::from_hours(1);

fn in_an_hour() -> Timestamp {
    Clock::system().now() + HOUR
}

/// The identity of `auth`, with a certificate that ends then.
fn caller(world: &World, not_after: Timestamp) -> Identity {
    let options = IssueOptions { not_after: Some(not_after), ..IssueOptions::new("auth") };
    Identity::load(&world.authority.issue_with(&options).unwrap()).unwrap()
}

/// How many look-ups the server has counted.
fn look_ups(world: &World) -> f64 {
    let text = world.metrics.render();
    let counts =
        text.lines().filter(|line| line.starts_with("drystone_calls_total") && line.contains("LookUpForSignIn"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// What a caller is told, and what is told to the one who called it.
fn assert_unavailable(status: Status) {
    assert_eq!((status.code(), reason_of(&status)), (Code::Unavailable, None), "{status:?}");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    let handed_on = Status::from(Error::from(status));
    assert_eq!(reason_of(&handed_on), Some(Reason::Unavailable));
    assert!(handed_on.get_details_retry_info().unwrap().retry_delay.is_some());
    assert!(!handed_on.message().contains("certificate"), "{}", handed_on.message());
}

#[tokio::test]
async fn a_server_certificate_that_ends_during_a_connection_ends_its_calls() {
    let world = World::build(|limits| limits, Clock::system(), Some(in_an_hour())).await;
    let clock = Clock::manual(Clock::system().now());
    let mut client = world.client_with(world.identity("auth"), clock.clone());
    client.look_up_for_sign_in(order("describe")).await.unwrap();
    clock.advance(2 * HOUR);
    assert_unavailable(client.look_up_for_sign_in(order("describe")).await.unwrap_err());
    assert!((look_ups(&world) - 1.0).abs() < 0.1, "the second was not sent");

    world.own.replace(&world.authority.issue("user").unwrap()).unwrap();
    client.look_up_for_sign_in(order("describe")).await.unwrap();
}

#[tokio::test]
async fn with_an_expired_certificate_of_our_own_nothing_is_sent() {
    let world = World::new().await;
    let clock = Clock::manual(Clock::system().now());
    let identity = caller(&world, in_an_hour());
    let mut client = world.client_with(identity.clone(), clock.clone());
    client.look_up_for_sign_in(order("describe")).await.unwrap();
    clock.advance(2 * HOUR);
    assert_unavailable(client.look_up_for_sign_in(order("describe")).await.unwrap_err());
    assert!((look_ups(&world) - 1.0).abs() < 0.1, "the second was not sent");

    identity.replace(&world.authority.issue("auth").unwrap()).unwrap();
    client.look_up_for_sign_in(order("describe")).await.unwrap();
}

#[tokio::test]
async fn a_refusal_of_our_expired_certificate_is_not_handed_to_our_own_caller() {
    // The server's clock is ahead of ours.
    let world = World::build(|limits| limits, Clock::manual(Clock::system().now() + 2 * HOUR), None).await;
    let mut client = world.client_with(caller(&world, in_an_hour()), Clock::system());
    assert_unavailable(client.look_up_for_sign_in(order("describe")).await.unwrap_err());
    assert!((look_ups(&world) - 1.0).abs() < 0.1, "the server has refused it");
}
