//! Who watches revocations, and how far each has got.
//!
//! The revocations themselves are in the store alone. The hub tells watchers that there is something new to read
//! there, and tells a revoking call when all of them have applied it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    select,
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::metrics::SessionMetrics;

/// Who watches revocations. Clones are the same hub.
#[derive(Debug, Clone)]
pub(crate) struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The number of the newest revocation that was announced.
    newest: watch::Sender<u64>,
    watchers: Mutex<Watchers>,
    /// Rung when a watcher has acknowledged or left.
    moved: Notify,
    metrics: SessionMetrics,
}

#[derive(Debug, Default)]
struct Watchers {
    last_id: u64,
    by_id: HashMap<u64, Watcher>,
}

#[derive(Debug)]
struct Watcher {
    acknowledged: u64,
    /// How often it has acknowledged at all.
    answers: u64,
    dismissed: CancellationToken,
}

/// A watcher that had not got far enough when somebody began to wait for it.
struct Behind {
    id: u64,
    answers: u64,
}

impl Hub {
    pub(crate) fn new(metrics: SessionMetrics) -> Self {
        let (newest, _) = watch::channel(0);
        Self(Arc::new(Inner { newest, watchers: Mutex::default(), moved: Notify::new(), metrics }))
    }

    /// Tells every watcher that the store has revocations up to here.
    pub(crate) fn announce(&self, seq: u64) {
        self.0.newest.send_if_modified(|newest| {
            let is_news = seq > *newest;
            *newest = seq.max(*newest);
            is_news
        });
    }

    /// Adds a watcher that has applied everything up to here.
    pub(crate) fn subscribe(&self, acknowledged: u64) -> Subscription {
        let dismissed = CancellationToken::new();
        let mut watchers = self.lock();
        watchers.last_id += 1;
        let id = watchers.last_id;
        watchers.by_id.insert(id, Watcher { acknowledged, answers: 0, dismissed: dismissed.clone() });
        self.0.metrics.watchers.inc();
        Subscription { hub: self.clone(), id, newest: self.0.newest.subscribe(), dismissed }
    }

    /// Waits until every watcher has acknowledged everything up to here, but no longer than `patience`. A watcher
    /// that has not said a word in all that time is dropped, so that it notices and comes back for what it missed.
    pub(crate) async fn settle(&self, seq: u64, patience: Duration) {
        let behind = self.behind(seq);
        let settled = async {
            loop {
                let moved = self.0.moved.notified();
                tokio::pin!(moved);
                // From here on a ring is not missed.
                moved.as_mut().enable();
                if self.have_reached(&behind, seq) {
                    return;
                }
                moved.await;
            }
        };
        if timeout(patience, settled).await.is_err() {
            self.drop_mute(&behind, seq);
        }
    }

    fn behind(&self, seq: u64) -> Vec<Behind> {
        let watchers = self.lock();
        let behind = watchers.by_id.iter().filter(|(_, watcher)| watcher.acknowledged < seq);
        behind.map(|(id, watcher)| Behind { id: *id, answers: watcher.answers }).collect()
    }

    fn have_reached(&self, behind: &[Behind], seq: u64) -> bool {
        let watchers = self.lock();
        behind.iter().all(|Behind { id, .. }| watchers.by_id.get(id).is_none_or(|watcher| watcher.acknowledged >= seq))
    }

    /// One that is still reading a long way up to here has acknowledged something, and stays.
    fn drop_mute(&self, behind: &[Behind], seq: u64) {
        let mut watchers = self.lock();
        for Behind { id, answers } in behind {
            let mute = |watcher: &mut Watcher| watcher.acknowledged < seq && watcher.answers == *answers;
            if watchers.by_id.get_mut(id).is_some_and(mute) {
                self.remove(&mut watchers, *id);
                self.0.metrics.watchers_dropped.inc();
                tracing::warn!(seq, "watcher of revocations dropped, it did not acknowledge in time");
            }
        }
    }

    fn acknowledge(&self, id: u64, seq: u64) {
        if let Some(watcher) = self.lock().by_id.get_mut(&id) {
            watcher.acknowledged = watcher.acknowledged.max(seq);
            watcher.answers += 1;
        }
        self.0.moved.notify_waiters();
    }

    fn remove(&self, watchers: &mut Watchers, id: u64) {
        if let Some(watcher) = watchers.by_id.remove(&id) {
            watcher.dismissed.cancel();
            self.0.metrics.watchers.dec();
            self.0.moved.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watchers> {
        self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watcher's place in the hub; it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Hub,
    id: u64,
    newest: watch::Receiver<u64>,
    dismissed: CancellationToken,
}

/// What a watcher can wait for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The store has something new.
    News,
    /// The hub wants to have no more to do with this watcher.
    Dismissed,
}

impl Subscription {
    /// Waits for something to happen that happened after the last [`Subscription::mark_read`].
    pub(crate) async fn next(&mut self) -> Event {
        let Self { newest, dismissed, .. } = self;
        select! {
            biased;
            () = dismissed.cancelled() => Event::Dismissed,
            // The hub lives as long as its subscriptions, so that this cannot fail.
            _ = newest.changed() => Event::News,
        }
    }

    /// What has been announced up to now is no news any more.
    pub(crate) fn mark_read(&mut self) {
        self.newest.mark_unchanged();
    }

    /// What the watcher has acknowledged was said of another history.
    pub(crate) fn start_over(&self) {
        if let Some(watcher) = self.hub.lock().by_id.get_mut(&self.id) {
            watcher.acknowledged = 0;
        }
    }

    /// What takes this watcher's acknowledgements.
    pub(crate) fn acknowledger(&self) -> Acknowledger {
        Acknowledger { hub: self.hub.clone(), id: self.id, dismissed: self.dismissed.clone() }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.remove(&mut self.hub.lock(), self.id);
    }
}

/// Takes the acknowledgements of one watcher.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledger {
    hub: Hub,
    id: u64,
    dismissed: CancellationToken,
}

impl Acknowledger {
    /// The watcher has applied everything up to here.
    pub(crate) fn acknowledge(&self, seq: u64) {
        self.hub.acknowledge(self.id, seq);
    }

    /// The watcher has gone, or can say nothing any more.
    pub(crate) fn leave(&self) {
        self.hub.remove(&mut self.hub.lock(), self.id);
    }

    /// Waits until the watcher has left.
    pub(crate) fn left(&self) -> WaitForCancellationFuture<'_> {
        self.dismissed.cancelled()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(50);

    fn hub() -> Hub {
        Hub::new(SessionMetrics::default())
    }

    /// Begins to wait, and is behind every watcher when this returns.
    async fn begin(hub: &Hub, seq: u64, patience: Duration) -> tokio::task::JoinHandle<()> {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let hub = hub.clone();
        let task = tokio::spawn(async move {
            begun.send(()).unwrap();
            hub.settle(seq, patience).await;
        });
        has_begun.await.unwrap();
        task
    }

    #[tokio::test]
    async fn with_no_watcher_nobody_is_waited_for() {
        hub().settle(7, LONG).await;
    }

    #[tokio::test]
    async fn a_revocation_settles_when_the_last_watcher_has_acknowledged_it() {
        let hub = hub();
        let (one, other) = (hub.subscribe(0), hub.subscribe(3));
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
        let watcher = hub.subscribe(0);
        let waiting = begin(&hub, 1, LONG).await;
        drop(watcher);
        waiting.await.unwrap();
        assert_eq!(hub.0.metrics.watchers.get(), 0);
    }

    #[tokio::test]
    async fn a_mute_watcher_delays_once_by_its_bound_and_is_dropped() {
        let hub = hub();
        let (mut mute, lively) = (hub.subscribe(0), hub.subscribe(1));
        let start = Instant::now();
        hub.settle(1, SHORT).await;
        assert!(start.elapsed() >= SHORT);
        assert_eq!(mute.next().await, Event::Dismissed);
        assert_eq!((hub.0.metrics.watchers.get(), hub.0.metrics.watchers_dropped.get()), (1, 1));

        lively.acknowledger().acknowledge(2);
        hub.settle(2, LONG).await;
        drop(mute);
        assert_eq!(hub.0.metrics.watchers.get(), 1);
    }

    #[tokio::test]
    async fn a_watcher_that_is_catching_up_is_kept() {
        let hub = hub();
        let watcher = hub.subscribe(0);
        let waiting = begin(&hub, 1000, SHORT).await;
        watcher.acknowledger().acknowledge(500);
        waiting.await.unwrap();
        assert_eq!(hub.0.metrics.watchers_dropped.get(), 0);
        assert!(!watcher.dismissed.is_cancelled());
    }

    #[tokio::test]
    async fn a_watcher_hears_of_what_is_new_and_of_nothing_else() {
        let hub = hub();
        let mut watcher = hub.subscribe(0);
        hub.announce(5);
        assert_eq!(watcher.next().await, Event::News);
        watcher.mark_read();
        hub.announce(4);
        assert!(!watcher.newest.has_changed().unwrap());
    }
}
