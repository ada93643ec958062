//! Faults of the network between a caller and its instances.

use std::time::{Duration, Instant};

use drystone::user::v1::{
    LookUpForSignInRequest, look_up_for_sign_in_request::Key, user_service_client::UserServiceClient,
};
use drystone_mesh::{
    call::Call,
    client::{BreakerState, Peer},
};
use drystone_tests::fault_proxy::{Direction, FaultProxy, Mode};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{
    is_up,
    support::{BOUND, Fleet},
};

/// More than the interval and the timeout of HTTP/2 pings together, which are 15 s.
const DETECTION_BOUND: Duration = Duration::from_mins(1);

/// Instances with a proxy each, through which they are called.
async fn proxied<const N: usize>(names: [&'static str; N]) -> (Fleet, Vec<FaultProxy>) {
    let mut fleet = Fleet::new(names).await;
    let mut proxies = Vec::new();
    for instance in &fleet.instances {
        proxies.push(FaultProxy::start(instance.address).await);
    }
    let addresses: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    fleet.call_peer(Peer::from(addresses));
    fleet.until_reported(is_up).await;
    (fleet, proxies)
}

/// An idempotent call with this deadline.
async fn read_within(fleet: &Fleet, deadline: Duration) -> Result<(), Status> {
    let call = Call::background(Some(Instant::now() + deadline));
    let key = Some(Key::Email("ada@example.com".to_owned()));
    let mut client = UserServiceClient::new(fleet.channel.clone());
    client.look_up_for_sign_in(call.request(LookUpForSignInRequest { key })).await.map(drop)
}

fn breaker_of(fleet: &Fleet, proxy: &FaultProxy) -> BreakerState {
    let report = fleet.health.report();
    let endpoints = &report.components["auth -> user"].endpoints;
    endpoints.iter().find(|endpoint| endpoint.address == proxy.address()).unwrap().breaker
}

async fn until_breaker(fleet: &Fleet, proxy: &FaultProxy, is_met: impl Fn(BreakerState) -> bool) {
    let met = async {
        while !is_met(breaker_of(fleet, proxy)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(BOUND, met).await.is_ok(), "{:?}", fleet.health.report());
}

#[tokio::test]
async fn a_call_into_a_black_hole_ends_at_its_deadline() {
    let (fleet, proxies) = proxied(["one"]).await;
    fleet.read().await.unwrap();
    for mode in [Mode::BlackHole, Mode::HalfOpen(Direction::ToServer), Mode::HalfOpen(Direction::ToClient)] {
        proxies[0].set(mode);
        let deadline = Duration::from_millis(300);
        let answer = timeout(BOUND, read_within(&fleet, deadline)).await.expect("the deadline holds");
        let code = answer.unwrap_err().code();
        // A new connection, if the last one has been reset, cannot be opened: that takes longer than the deadline.
        assert_eq!(code, Code::DeadlineExceeded, "{mode:?}");
        proxies[0].set(Mode::Pass);
        let recovered = async { while read_within(&fleet, Duration::from_secs(5)).await.is_err() {} };
        timeout(BOUND, recovered).await.expect("calls succeed again");
    }
}

#[tokio::test]
async fn delayed_answers_arrive_within_the_deadline() {
    let (fleet, proxies) = proxied(["one"]).await;
    let delay = Duration::from_millis(50);
    proxies[0].set(Mode::Delay { to_server: delay, to_client: delay });
    read_within(&fleet, BOUND).await.unwrap();
}

#[tokio::test]
async fn idempotent_calls_succeed_through_another_instance() {
    let (fleet, proxies) = proxied(["one", "two"]).await;
    // Connections break at any point, also in the middle of an answer.
    for mode in [Mode::CutAfter(100), Mode::CutAfter(5000), Mode::Cut] {
        proxies[0].set(mode);
        for _ in 0..50 {
            fleet.read().await.unwrap();
        }
        proxies[0].set(Mode::Pass);
        until_breaker(&fleet, &proxies[0], |state| state == BreakerState::Closed).await;
    }
}

#[tokio::test]
async fn a_breaker_opens_when_connections_are_cut_and_closes_afterwards() {
    let (fleet, proxies) = proxied(["one", "two"]).await;
    proxies[0].set(Mode::Cut);
    until_breaker(&fleet, &proxies[0], |state| state != BreakerState::Closed).await;
    for _ in 0..20 {
        assert_eq!(fleet.read().await.unwrap(), "two");
        fleet.write().await.unwrap();
    }
    proxies[0].set(Mode::Pass);
    until_breaker(&fleet, &proxies[0], |state| state == BreakerState::Closed).await;
    let first_is_called = async { while fleet.read().await.unwrap() != "one" {} };
    timeout(BOUND, first_is_called).await.unwrap();
}

#[tokio::test]
async fn a_half_open_connection_is_detected_and_replaced() {
    let (fleet, proxies) = proxied(["one"]).await;
    fleet.read().await.unwrap();
    let accepted = proxies[0].accepted();
    // As if a firewall had forgotten the connection: nothing says that it is broken.
    proxies[0].set_present(Mode::HalfOpen(Direction::ToClient));
    let replaced = async { while read_within(&fleet, Duration::from_millis(500)).await.is_err() {} };
    timeout(DETECTION_BOUND, replaced).await.expect("calls succeed over another connection");
    assert!(proxies[0].accepted() > accepted);
}
