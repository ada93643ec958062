//! Load balancing, ejection and retries over several endpoints, with real sockets and mutual TLS.

mod faults;
mod groups;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use drystone::user::v1::{
    LookUpForSignInRequest, look_up_for_sign_in_request::Key, user_service_client::UserServiceClient,
};
use drystone_mesh::{call::Call, error::reason_of, health::State};
use support::{BOUND, Behaviour, Fleet, is_unavailable};
use tokio::time::timeout;
use tonic::Code;

fn is_up(component: &drystone_mesh::health::ComponentReport) -> bool {
    component.state == State::Up
}

/// The number of calls answered by each instance.
async fn answers(fleet: &Fleet, calls: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..calls {
        *answers.entry(fleet.read().await.unwrap()).or_default() += 1;
    }
    answers
}

#[tokio::test]
async fn calls_are_balanced_over_all_endpoints() {
    let fleet = Fleet::new(["one", "two", "three"]).await;
    let mut answers = BTreeMap::<String, usize>::new();
    let rounds = (0..30).map(|_| async {
        let batch = (0..16).map(|_| fleet.read());
        futures_util::future::join_all(batch).await
    });
    for round in rounds {
        for answer in round.await {
            *answers.entry(answer.unwrap()).or_default() += 1;
        }
    }
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert!(answers.values().all(|calls| *calls > 480 / 3 / 4), "{answers:?}");
}

#[tokio::test]
async fn a_stopping_endpoint_fails_no_call() {
    let mut fleet = Fleet::new(["one", "two"]).await;
    fleet.until_reported(is_up).await;
    let mut stopping = fleet.instances.remove(0);
    let calls = async {
        let mut failed = Vec::new();
        for _ in 0..60 {
            let (reads, writes) = tokio::join!(
                futures_util::future::join_all((0..8).map(|_| fleet.read())),
                futures_util::future::join_all((0..8).map(|_| fleet.write())),
            );
            failed.extend(reads.into_iter().filter_map(Result::err));
            failed.extend(writes.into_iter().filter_map(Result::err));
        }
        failed
    };
    let stop = async {
        while stopping.handlers.started() < 100 {
            tokio::task::yield_now().await;
        }
        stopping.stop().await;
    };
    let (failed, ()) = tokio::join!(calls, stop);
    assert!(failed.is_empty(), "{} of 960 calls failed: {:?}", failed.len(), failed[0]);
    assert_eq!(answers(&fleet, 20).await, BTreeMap::from([("two".to_owned(), 20)]));
}

#[tokio::test]
async fn an_unreachable_endpoint_is_ejected_and_recovers() {
    let mut fleet = Fleet::new(["one", "two"]).await;
    fleet.until_reported(is_up).await;
    fleet.instances[0].close();
    assert_eq!(answers(&fleet, 50).await, BTreeMap::from([("two".to_owned(), 50)]), "what can be repeated is");
    let address = fleet.instances[0].address;
    fleet
        .until_reported(|component| {
            component.state == State::Degraded
                && component.detail.starts_with(&format!("1 of 2 instances serve; {address}: "))
        })
        .await;
    assert!((fleet.metric("drystone_client_ejected_endpoints") - 1.0).abs() < 0.1);
    for _ in 0..50 {
        fleet.write().await.unwrap();
    }

    fleet.instances[0].open().await;
    fleet.until_reported(is_up).await;
    let both = async { while answers(&fleet, 20).await.len() < 2 {} };
    timeout(BOUND, both).await.unwrap();
}

#[tokio::test]
async fn a_disconnected_endpoint_is_probed_at_once_without_a_call() {
    // Less than the interval of probes.
    const SOON: Duration = Duration::from_secs(3);
    let mut fleet = Fleet::new(["one", "two"]).await;
    fleet.until_reported(is_up).await;
    fleet.instances[0].close();
    let ejected = fleet.until_reported(|component| component.state == State::Degraded);
    timeout(SOON, ejected).await.expect("no call was needed to eject the instance");
}

#[tokio::test]
async fn a_call_that_may_have_run_is_retried_only_if_it_is_idempotent() {
    let fleet = Fleet::new(["one", "two"]).await;
    fleet.until_reported(is_up).await;
    let hang = || fleet.instances.iter().for_each(|instance| instance.handlers.set(Behaviour::Hang));
    let started = || fleet.instances.iter().map(|instance| instance.handlers.started()).sum::<u32>();

    hang();
    let (answer, ()) = tokio::join!(fleet.write(), cut_when_started(&fleet));
    assert!(is_unavailable(&answer), "{answer:?}");
    assert_eq!(started(), 1, "it was not repeated");

    hang();
    let (answer, ()) = tokio::join!(fleet.read(), cut_when_started(&fleet));
    answer.unwrap();
    assert_eq!(started(), 3, "it was repeated once");
    assert!((fleet.metric("drystone_client_retries_total") - 1.0).abs() < 0.1);
}

/// Closes all connections as soon as an instance hangs. After that, every instance answers.
async fn cut_when_started(fleet: &Fleet) {
    let [one, two] = &fleet.instances[..] else { unreachable!() };
    tokio::select! {
        () = one.handlers.hanging.notified() => {}
        () = two.handlers.hanging.notified() => {}
    }
    for instance in [one, two] {
        instance.handlers.set(Behaviour::Answer);
        instance.cut();
    }
}

#[tokio::test]
async fn a_failing_endpoint_is_ejected() {
    let fleet = Fleet::new(["one", "two"]).await;
    fleet.until_reported(is_up).await;
    fleet.instances[0].handlers.set(Behaviour::Refuse);
    let refused = || fleet.instances[0].handlers.started();
    while refused() == 0 {
        let batch = futures_util::future::join_all((0..8).map(|_| fleet.read())).await;
        assert!(batch.iter().all(Result::is_ok), "the other instance is tried: {batch:?}");
    }
    let noticed = refused();
    assert_eq!(answers(&fleet, 200).await, BTreeMap::from([("two".to_owned(), 200)]));
    let more = refused() - noticed;
    assert!(more <= 10, "{more} of 200 calls went to an instance that refuses");

    fleet.instances[0].handlers.set(Behaviour::Answer);
    // At once, so that the load decides, and not which of them has been a little faster.
    let both = async {
        loop {
            let batch = futures_util::future::join_all((0..8).map(|_| fleet.read())).await;
            if batch.into_iter().map(Result::unwrap).collect::<BTreeSet<_>>().len() == 2 {
                return;
            }
        }
    };
    timeout(BOUND, both).await.unwrap();
}

#[tokio::test]
async fn the_last_endpoint_is_never_ejected() {
    let fleet = Fleet::new(["one", "two"]).await;
    fleet.until_reported(is_up).await;
    for instance in &fleet.instances {
        instance.handlers.set(Behaviour::Refuse);
    }
    for _ in 0..50 {
        assert!(is_unavailable(&fleet.write().await));
    }
    for instance in &fleet.instances {
        instance.handlers.set(Behaviour::Answer);
    }
    fleet.write().await.unwrap();
}

#[tokio::test]
async fn the_retry_budget_limits_retries_when_everything_fails() {
    let fleet = Fleet::new(["one", "two"]).await;
    fleet.until_reported(is_up).await;
    for instance in &fleet.instances {
        instance.handlers.set(Behaviour::Refuse);
    }
    for _ in 0..1000 {
        assert_eq!(fleet.read().await.unwrap_err().code(), Code::Unavailable);
    }
    let started: u32 = fleet.instances.iter().map(|instance| instance.handlers.started()).sum();
    // A fifth of all, and ten a second over ten seconds.
    assert!((1000..=1300).contains(&started), "1000 calls were sent {started} times");
}

#[tokio::test]
async fn a_status_is_returned_unchanged() {
    let fleet = Fleet::new(["one", "two"]).await;
    for instance in &fleet.instances {
        instance.handlers.set(Behaviour::Refuse);
    }
    let status = fleet.read().await.unwrap_err();
    assert_eq!(reason_of(&status), Some(drystone_mesh::error::Reason::Unavailable));
    assert!(status.message().contains("the database is unavailable"), "{}", status.message());
}

#[tokio::test]
async fn an_unresponsive_endpoint_receives_fewer_calls() {
    let fleet = Fleet::new(["one", "two"]).await;
    fleet.until_reported(is_up).await;
    fleet.instances[0].handlers.set(Behaviour::Hang);
    let mut given_up = 0;
    for _ in 0..200 {
        let call = Call::background(Some(Instant::now() + Duration::from_millis(500)));
        let key = Some(Key::Email("ada@example.com".to_owned()));
        let mut client = UserServiceClient::new(fleet.channel.clone());
        let answer = client.look_up_for_sign_in(call.request(LookUpForSignInRequest { key })).await;
        given_up += usize::from(answer.is_err());
    }
    // One is what it takes to notice, and one more after each health check, which it does answer.
    assert!(given_up <= 4, "{given_up} of 200 calls waited for nothing");
}

#[tokio::test]
async fn a_gracefully_closed_connection_is_reopened_without_a_failed_call() {
    let fleet = Fleet::new(["one"]).await;
    fleet.until_reported(is_up).await;
    for _ in 0..5 {
        fleet.read().await.unwrap();
        fleet.instances[0].cut();
        fleet.read().await.unwrap();
    }
}

/// HTTP/2 ends a connection after 1,024 frames of streams that it no longer knows. Each of these calls is given up when its
/// response is on the way.
#[tokio::test]
async fn calls_that_are_given_up_end_no_connection() {
    const IN_FLIGHT: u32 = 200;
    let fleet = Fleet::new(["one"]).await;
    fleet.until_reported(is_up).await;
    fleet.read().await.unwrap();
    let one = &fleet.instances[0];
    let handlers = &one.handlers;
    for _ in 0..20 {
        handlers.set(Behaviour::Wait);
        let expected = handlers.started() + IN_FLIGHT;
        let calls = futures_util::future::join_all((0..IN_FLIGHT).map(|_| fleet.write()));
        let started = async {
            while handlers.started() < expected {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = calls => panic!("the calls wait"),
            () = started => {}
        }
        handlers.released.notify_waiters();
        handlers.set(Behaviour::Answer);
        assert_eq!(fleet.read().await.unwrap(), "one");
    }
    assert_eq!(one.connections(), 1);
}

#[tokio::test]
async fn a_new_certificate_is_used_from_the_next_call() {
    let fleet = Fleet::new(["one"]).await;
    fleet.until_reported(is_up).await;
    for made in 1..4 {
        fleet.read().await.unwrap();
        fleet.read().await.unwrap();
        assert_eq!(fleet.instances[0].connections(), made);
        fleet.renew_caller();
    }
}

#[tokio::test]
async fn a_name_is_resolved() {
    let mut fleet = Fleet::new(["one"]).await;
    fleet.call_at(format!("localhost:{}", fleet.instances[0].address.port()));
    assert_eq!(fleet.read().await.unwrap(), "one", "the first call waits for the address");
    fleet.until_reported(is_up).await;
}

#[tokio::test]
async fn an_unresolvable_name_is_reported() {
    let mut fleet = Fleet::new(["one"]).await;
    fleet.call_at("no-such-host.invalid:50052".to_owned());
    let status = fleet.read().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    fleet.until_reported(|component| component.detail.contains("`no-such-host.invalid` cannot be resolved")).await;
}
