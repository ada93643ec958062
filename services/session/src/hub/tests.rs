//! Who is waited for, for how long, and who is dropped.

use super::*;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);

fn hub() -> Hub {
    Hub::new(SessionMetrics::default())
}

/// A watcher of a workload that counts for nothing here.
fn subscribe(hub: &Hub, acknowledged: u64) -> Subscription {
    hub.subscribe(hub.reserve(None).unwrap(), acknowledged)
}

fn workload(name: &str) -> SpiffeId {
    format!("spiffe://drystone.local/service/{name}").parse().unwrap()
}

/// Begins to wait, and is behind every watcher when this returns.
async fn begin(hub: &Hub, seq: u64, patience: Duration) -> tokio::task::JoinHandle<()> {
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let hub = hub.clone();
    let task = tokio::spawn(async move {
        begun.send(()).unwrap();
        hub.wait_for_acks(seq, patience).await;
    });
    has_begun.await.unwrap();
    task
}

#[tokio::test]
async fn with_no_watcher_nobody_is_waited_for() {
    hub().wait_for_acks(7, LONG).await;
}

#[tokio::test]
async fn a_revocation_settles_when_the_last_watcher_has_acknowledged_it() {
    let hub = hub();
    let (one, other) = (subscribe(&hub, 0), subscribe(&hub, 3));
    let waiting = begin(&hub, 3, LONG).await;
    one.acknowledger().acknowledge(2);
    assert!(!waiting.is_finished());
    one.acknowledger().acknowledge(3);
    waiting.await.unwrap();
    drop(other);
}

#[tokio::test]
async fn a_watcher_that_leaves_is_no_longer_waited_for() {
    let hub = hub();
    let watcher = subscribe(&hub, 0);
    let waiting = begin(&hub, 1, LONG).await;
    drop(watcher);
    waiting.await.unwrap();
    assert_eq!(hub.0.metrics.watchers.get(), 0);
}

#[tokio::test]
async fn a_mute_watcher_delays_once_by_its_bound_and_is_dropped() {
    let hub = hub();
    let (mut mute, lively) = (subscribe(&hub, 0), subscribe(&hub, 1));
    let start = Instant::now();
    hub.wait_for_acks(1, SHORT).await;
    assert!(start.elapsed() >= SHORT);
    assert_eq!(mute.next().await, Event::Dismissed);
    assert_eq!((hub.0.metrics.watchers.get(), hub.0.metrics.watchers_dropped.get()), (1, 1));

    lively.acknowledger().acknowledge(2);
    hub.wait_for_acks(2, LONG).await;
    drop(mute);
    assert_eq!(hub.0.metrics.watchers.get(), 1);
}

#[tokio::test]
async fn a_watcher_that_is_catching_up_is_kept() {
    let hub = hub();
    let watcher = subscribe(&hub, 0);
    let waiting = begin(&hub, 1000, SHORT).await;
    watcher.acknowledger().acknowledge(500);
    waiting.await.unwrap();
    assert_eq!(hub.0.metrics.watchers_dropped.get(), 0);
    assert!(!watcher.dismissed.is_cancelled());
}

#[tokio::test]
async fn a_watcher_hears_of_what_is_new_and_of_nothing_else() {
    let hub = hub();
    let mut watcher = subscribe(&hub, 0);
    hub.announce(5);
    assert_eq!(watcher.next().await, Event::News);
    watcher.mark_read();
    hub.announce(4);
    assert!(!watcher.newest.has_changed().unwrap());
}

#[tokio::test]
async fn a_watcher_that_lags_delays_one_call_until_it_has_caught_up() {
    let hub = hub();
    let (slow, quick) = (subscribe(&hub, 0), subscribe(&hub, 0));
    let (slowly, quickly) = (slow.acknowledger(), quick.acknowledger());
    hub.announce(10);
    let waiting = begin(&hub, 10, SHORT).await;
    slowly.acknowledge(5);
    quickly.acknowledge(10);
    waiting.await.unwrap();
    assert_eq!((hub.0.metrics.watchers_lagging.get(), hub.0.metrics.watchers_dropped.get()), (1, 0));

    // It is connected, is told what is new, and nobody waits for it.
    hub.announce(11);
    quickly.acknowledge(11);
    timeout(SHORT, hub.wait_for_acks(11, LONG)).await.expect("a watcher that lags is not waited for");
    slowly.acknowledge(10);
    assert_eq!(hub.0.metrics.watchers_lagging.get(), 1, "there is more that it has not applied");
    slowly.acknowledge(11);
    assert_eq!(hub.0.metrics.watchers_lagging.get(), 0);

    hub.announce(12);
    quickly.acknowledge(12);
    let waiting = begin(&hub, 12, LONG).await;
    assert!(timeout(SHORT, async { hub.wait_for_acks(12, LONG).await }).await.is_err(), "it is waited for again");
    slowly.acknowledge(12);
    waiting.await.unwrap();
    assert!(!slow.dismissed.is_cancelled());
}

#[tokio::test]
async fn a_watcher_that_lags_and_says_nothing_any_more_is_dropped() {
    let hub = hub();
    let (mut slow, lively) = (subscribe(&hub, 0), subscribe(&hub, 9));
    let waiting = begin(&hub, 9, SHORT).await;
    slow.acknowledger().acknowledge(1);
    waiting.await.unwrap();
    hub.evict_unresponsive(9, Instant::now(), LONG);
    assert_eq!(hub.0.metrics.watchers_dropped.get(), 0);
    hub.evict_unresponsive(9, Instant::now() + LONG, LONG);
    assert_eq!(slow.next().await, Event::Dismissed);
    let SessionMetrics { watchers, watchers_lagging, watchers_dropped, .. } = &hub.0.metrics;
    assert_eq!((watchers.get(), watchers_lagging.get(), watchers_dropped.get()), (1, 0, 1));
    drop((slow, lively));
}

#[tokio::test]
async fn watchers_are_bounded_for_each_workload_and_in_total() {
    let hub = hub();
    let reserve = |name: &str| hub.reserve(Some(workload(name)));
    let mut places: Vec<WatcherSlot> = (0..MAX_WATCHERS_PER_WORKLOAD).map(|_| reserve("auth").unwrap()).collect();
    assert_eq!(reserve("auth").unwrap_err(), TooManyWatchers::OfWorkload);
    places.push(reserve("user").unwrap());
    let subscription = hub.subscribe(places.swap_remove(0), 0);
    assert_eq!(reserve("auth").unwrap_err(), TooManyWatchers::OfWorkload);
    drop(subscription);
    places.push(reserve("auth").unwrap());

    let names = (0..).flat_map(|number| vec![format!("service-{number}"); MAX_WATCHERS_PER_WORKLOAD]);
    for name in names.take(MAX_WATCHERS - places.len()) {
        places.push(reserve(&name).unwrap());
    }
    assert_eq!(reserve("property").unwrap_err(), TooManyWatchers::InTotal);
    places.clear();
    assert!(hub.lock().places.is_empty(), "nothing is kept of workloads that have left");
}
