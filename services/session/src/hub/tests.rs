//! Which watchers a call waits for, for how long, and which are evicted.

use super::*;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);

fn hub() -> Hub {
    Hub::new(SessionMetrics::default())
}

/// A watcher without a workload.
fn subscribe(hub: &Hub, acknowledged: u64) -> Subscription {
    hub.subscribe(hub.reserve(None).unwrap(), acknowledged)
}

fn workload(name: &str) -> SpiffeId {
    format!("spiffe://drystone.local/service/{name}").parse().unwrap()
}

/// Waits for acknowledgements in a task, which has started when this returns.
async fn spawn_wait(hub: &Hub, seq: u64, ack_timeout: Duration) -> tokio::task::JoinHandle<()> {
    let (started, has_started) = tokio::sync::oneshot::channel();
    let hub = hub.clone();
    let task = tokio::spawn(async move {
        started.send(()).unwrap();
        hub.wait_for_acks(seq, ack_timeout).await;
    });
    has_started.await.unwrap();
    task
}

#[tokio::test]
async fn without_watchers_a_call_does_not_wait() {
    hub().wait_for_acks(7, LONG).await;
}

#[tokio::test]
async fn a_call_waits_until_the_last_watcher_has_acknowledged() {
    let hub = hub();
    let (one, other) = (subscribe(&hub, 0), subscribe(&hub, 3));
    let waiting = spawn_wait(&hub, 3, LONG).await;
    one.acknowledger().acknowledge(2);
    assert!(!waiting.is_finished());
    one.acknowledger().acknowledge(3);
    waiting.await.unwrap();
    drop(other);
}

#[tokio::test]
async fn a_removed_watcher_is_no_longer_waited_for() {
    let hub = hub();
    let watcher = subscribe(&hub, 0);
    let waiting = spawn_wait(&hub, 1, LONG).await;
    drop(watcher);
    waiting.await.unwrap();
    assert_eq!(hub.0.metrics.watchers.get(), 0);
}

#[tokio::test]
async fn an_unresponsive_watcher_delays_one_call_by_the_ack_timeout_and_is_evicted() {
    let hub = hub();
    let (mut unresponsive, responsive) = (subscribe(&hub, 0), subscribe(&hub, 1));
    let start = Instant::now();
    hub.wait_for_acks(1, SHORT).await;
    assert!(start.elapsed() >= SHORT);
    assert_eq!(unresponsive.next().await, Event::Evicted);
    assert_eq!((hub.0.metrics.watchers.get(), hub.0.metrics.watchers_evicted.get()), (1, 1));

    responsive.acknowledger().acknowledge(2);
    hub.wait_for_acks(2, LONG).await;
    drop(unresponsive);
    assert_eq!(hub.0.metrics.watchers.get(), 1);
}

#[tokio::test]
async fn a_watcher_that_is_catching_up_is_not_evicted() {
    let hub = hub();
    let watcher = subscribe(&hub, 0);
    let waiting = spawn_wait(&hub, 1000, SHORT).await;
    watcher.acknowledger().acknowledge(500);
    waiting.await.unwrap();
    assert_eq!(hub.0.metrics.watchers_evicted.get(), 0);
    assert!(!watcher.evicted.is_cancelled());
}

#[tokio::test]
async fn a_watcher_is_notified_of_newer_revocations_only() {
    let hub = hub();
    let mut watcher = subscribe(&hub, 0);
    hub.announce(5);
    assert_eq!(watcher.next().await, Event::NewRevocations);
    watcher.mark_read();
    hub.announce(4);
    assert!(!watcher.newest.has_changed().unwrap());
}

#[tokio::test]
async fn a_lagging_watcher_delays_one_call_until_it_has_caught_up() {
    let hub = hub();
    let (slow, fast) = (subscribe(&hub, 0), subscribe(&hub, 0));
    let (slow_acks, fast_acks) = (slow.acknowledger(), fast.acknowledger());
    hub.announce(10);
    let waiting = spawn_wait(&hub, 10, SHORT).await;
    slow_acks.acknowledge(5);
    fast_acks.acknowledge(10);
    waiting.await.unwrap();
    assert_eq!((hub.0.metrics.watchers_lagging.get(), hub.0.metrics.watchers_evicted.get()), (1, 0));

    // It stays connected and is notified, but no call waits for it.
    hub.announce(11);
    fast_acks.acknowledge(11);
    timeout(SHORT, hub.wait_for_acks(11, LONG)).await.expect("no call waits for a lagging watcher");
    slow_acks.acknowledge(10);
    assert_eq!(hub.0.metrics.watchers_lagging.get(), 1, "revocation 11 is not acknowledged yet");
    slow_acks.acknowledge(11);
    assert_eq!(hub.0.metrics.watchers_lagging.get(), 0);

    hub.announce(12);
    fast_acks.acknowledge(12);
    let waiting = spawn_wait(&hub, 12, LONG).await;
    assert!(timeout(SHORT, async { hub.wait_for_acks(12, LONG).await }).await.is_err(), "calls wait for it again");
    slow_acks.acknowledge(12);
    waiting.await.unwrap();
    assert!(!slow.evicted.is_cancelled());
}

#[tokio::test]
async fn a_lagging_watcher_that_stops_acknowledging_is_evicted() {
    let hub = hub();
    let (mut slow, responsive) = (subscribe(&hub, 0), subscribe(&hub, 9));
    let waiting = spawn_wait(&hub, 9, SHORT).await;
    slow.acknowledger().acknowledge(1);
    waiting.await.unwrap();
    hub.evict_unresponsive(9, Instant::now(), LONG);
    assert_eq!(hub.0.metrics.watchers_evicted.get(), 0);
    hub.evict_unresponsive(9, Instant::now() + LONG, LONG);
    assert_eq!(slow.next().await, Event::Evicted);
    let SessionMetrics { watchers, watchers_lagging, watchers_evicted, .. } = &hub.0.metrics;
    assert_eq!((watchers.get(), watchers_lagging.get(), watchers_evicted.get()), (1, 0, 1));
    drop((slow, responsive));
}

#[tokio::test]
async fn watchers_are_limited_per_workload_and_in_total() {
    let hub = hub();
    let reserve = |name: &str| hub.reserve(Some(workload(name)));
    let mut slots: Vec<WatcherSlot> = (0..MAX_WATCHERS_PER_WORKLOAD).map(|_| reserve("auth").unwrap()).collect();
    assert_eq!(reserve("auth").unwrap_err(), TooManyWatchers::OfWorkload);
    slots.push(reserve("user").unwrap());
    let subscription = hub.subscribe(slots.swap_remove(0), 0);
    assert_eq!(reserve("auth").unwrap_err(), TooManyWatchers::OfWorkload);
    drop(subscription);
    slots.push(reserve("auth").unwrap());

    let names = (0..).flat_map(|number| vec![format!("service-{number}"); MAX_WATCHERS_PER_WORKLOAD]);
    for name in names.take(MAX_WATCHERS - slots.len()) {
        slots.push(reserve(&name).unwrap());
    }
    assert_eq!(reserve("property").unwrap_err(), TooManyWatchers::InTotal);
    slots.clear();
    assert!(hub.lock().slots.is_empty(), "workloads without watchers are removed");
}
