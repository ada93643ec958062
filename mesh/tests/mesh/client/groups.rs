//! Groups of endpoints, and the states of breakers as operators see them.

use std::time::Duration;

use drystone_mesh::{
    client::{BreakerSettings, BreakerState, Peer, PeerGroup, ProbeSettings},
    health::EndpointReport,
};
use http::{HeaderName, HeaderValue};

use super::{
    answers, is_up,
    support::{BOUND, Behaviour, Fleet},
};

const RELEASE: (&str, &str) = ("x-release", "next");

/// Two instances, `one` and, in the group `canary`, `two`.
async fn with_canary(percent: u8, header: Option<(&'static str, &'static str)>) -> Fleet {
    let mut fleet = Fleet::new(["one", "two"]).await;
    let [one, two] = [0, 1].map(|number| fleet.instances[number].address.to_string());
    let header = header.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let canary = PeerGroup { name: "canary".to_owned(), addresses: vec![two], percent, header };
    fleet.call_peer(Peer { addresses: vec![one], groups: vec![canary], ..Peer::default() });
    fleet.until_reported(is_up).await;
    fleet
}

fn endpoints(fleet: &Fleet) -> Vec<EndpointReport> {
    fleet.health.report().components["auth -> user"].endpoints.clone()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(BOUND, met).await.is_ok(), "{what}");
}

#[tokio::test]
async fn a_group_receives_its_share_of_calls() {
    let fleet = with_canary(20, None).await;
    let answers = answers(&fleet, 1000).await;
    // Far more than five standard deviations around 200.
    assert!((100..300).contains(&answers["two"]), "{answers:?}");
}

#[tokio::test]
async fn calls_with_the_header_of_a_group_go_to_it_and_no_others() {
    let fleet = with_canary(0, Some(RELEASE)).await;
    for _ in 0..50 {
        assert_eq!(fleet.read_with(&[RELEASE]).await.unwrap(), "two");
        assert_eq!(fleet.read().await.unwrap(), "one");
        assert_eq!(fleet.read_with(&[("x-release", "next2")]).await.unwrap(), "one");
    }
}

#[tokio::test]
async fn a_group_that_fails_costs_no_idempotent_call() {
    let mut fleet = with_canary(0, Some(RELEASE)).await;
    fleet.instances[1].handlers.set(Behaviour::Refuse);
    for _ in 0..20 {
        assert_eq!(fleet.read_with(&[RELEASE]).await.unwrap(), "one", "the default group takes it");
    }
    assert!(fleet.instances[1].handlers.started() > 0);
    fleet.instances[1].close();
    for _ in 0..20 {
        assert_eq!(fleet.read_with(&[RELEASE]).await.unwrap(), "one");
    }
}

#[tokio::test]
async fn the_states_of_breakers_are_in_metrics_and_health_reports() {
    let mut fleet = Fleet::new(["one", "two"]).await;
    let addresses = fleet.instances.iter().map(|instance| instance.address.to_string()).collect();
    fleet.call_peer(Peer {
        addresses,
        breaker: BreakerSettings { failure_threshold: 2, open_time: Duration::from_millis(50), success_threshold: 3 },
        probe: ProbeSettings { interval: Duration::from_millis(50), timeout: Duration::from_secs(5) },
        groups: Vec::new(),
    });
    fleet.until_reported(is_up).await;
    let first = fleet.instances[0].address;
    let state = |fleet: &Fleet| endpoints(fleet).iter().find(|endpoint| endpoint.address == first).unwrap().breaker;
    assert_eq!(state(&fleet), BreakerState::Closed);
    let reported = endpoints(&fleet);
    assert!(reported.len() == 2 && reported.iter().all(|endpoint| endpoint.group == "default"), "{reported:?}");
    assert!(reported.iter().all(|endpoint| endpoint.probe == "serving"), "{reported:?}");

    // It answers health checks, and no calls.
    fleet.instances[0].handlers.set(Behaviour::Refuse);
    let opened = async {
        while state(&fleet) == BreakerState::Closed {
            fleet.read().await.unwrap();
        }
    };
    tokio::time::timeout(BOUND, opened).await.unwrap();
    fleet.instances[0].handlers.set(Behaviour::Answer);
    until("the breaker closes after successful checks", || state(&fleet) == BreakerState::Closed).await;
    let count = |state: &str| {
        let labels = format!(r#"{{caller="auth",service="user",group="default",state="{state}"}}"#);
        let line = |count: usize| format!("drystone_client_breakers{labels} {count}");
        let text = fleet.metrics.render();
        (0..3).find(|number| text.lines().any(|rendered| rendered == line(*number)))
    };
    until("all are counted as closed", || count("closed") == Some(2) && count("open") == Some(0)).await;
    assert_eq!(count("half_open"), Some(0));
    let text = fleet.metrics.render();
    assert!(
        text.contains(
            r#"drystone_client_probes_total{caller="auth",service="user",group="default",outcome="serving"}"#
        )
    );

    fleet.instances[1].close();
    until("an unreachable instance is reported", || {
        endpoints(&fleet).iter().any(|endpoint| endpoint.probe == "unreachable" && !endpoint.detail.is_empty())
    })
    .await;
}
