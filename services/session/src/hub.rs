//! Who watches revocations, and how far each has got.
//!
//! The revocations themselves are in the store alone. The hub tells watchers that there is something new to read
//! there, and tells a revoking call when all of them have applied it. One that acknowledges slowly delays one call by
//! the time it has, and is not waited for again until it has caught up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use drystone_mesh::identity::SpiffeId;
use tokio::{
    select,
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::metrics::SessionMetrics;

/// How many watchers one workload may have at once, all its instances together.
pub(crate) const MAX_WATCHERS_PER_WORKLOAD: usize = 64;

/// How many watchers there may be at once.
pub(crate) const MAX_WATCHERS: usize = 1024;

/// A watcher that lags and has not acknowledged anything for so many times as long as a revoking call waits is dropped.
/// One that is connected acknowledges each heartbeat.
const LAG_TIMEOUTS: u32 = 40;

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
    /// How many places each workload has taken. `None` stands for callers without an identity, which there are in tests.
    places: HashMap<Option<SpiffeId>, usize>,
}

#[derive(Debug)]
struct Watcher {
    acknowledged: u64,
    /// How often it has acknowledged at all.
    answers: u64,
    /// When it last did.
    answered_at: Instant,
    /// Whether it has kept a revoking call waiting for too long, and has not caught up since.
    lags: bool,
    dismissed: CancellationToken,
}

/// There are too many watchers already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooManyWatchers {
    /// The workload has as many as it may have.
    OfWorkload,
    /// There are as many as there may be.
    InTotal,
}

/// A watcher's share of what there may be, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct WatcherSlot {
    hub: Hub,
    workload: Option<SpiffeId>,
}

impl Drop for WatcherSlot {
    fn drop(&mut self) {
        let mut watchers = self.hub.lock();
        if let Some(taken) = watchers.places.get_mut(&self.workload) {
            *taken -= 1;
            if *taken == 0 {
                watchers.places.remove(&self.workload);
            }
        }
    }
}

/// A watcher that had not got far enough when somebody began to wait for it.
struct Lagging {
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

    /// Takes a place for a watcher of this workload.
    pub(crate) fn reserve(&self, workload: Option<SpiffeId>) -> Result<WatcherSlot, TooManyWatchers> {
        let mut watchers = self.lock();
        if watchers.places.values().sum::<usize>() >= MAX_WATCHERS {
            return Err(TooManyWatchers::InTotal);
        }
        let taken = watchers.places.entry(workload.clone()).or_default();
        if *taken >= MAX_WATCHERS_PER_WORKLOAD {
            return Err(TooManyWatchers::OfWorkload);
        }
        *taken += 1;
        Ok(WatcherSlot { hub: self.clone(), workload })
    }

    /// Adds a watcher that has applied everything up to here.
    pub(crate) fn subscribe(&self, place: WatcherSlot, acknowledged: u64) -> Subscription {
        let dismissed = CancellationToken::new();
        let mut watchers = self.lock();
        watchers.last_id += 1;
        let id = watchers.last_id;
        let answered_at = Instant::now();
        let watcher = Watcher { acknowledged, answers: 0, answered_at, lags: false, dismissed: dismissed.clone() };
        watchers.by_id.insert(id, watcher);
        self.0.metrics.watchers.inc();
        Subscription { hub: self.clone(), id, newest: self.0.newest.subscribe(), dismissed, _place: place }
    }

    /// Waits until every watcher that does not lag has acknowledged everything up to here, but no longer than
    /// `patience`. A watcher that has acknowledged nothing in all that time is dropped, so that it notices and comes back
    /// for what it missed. One that has acknowledged something lags from then on, until it has caught up.
    pub(crate) async fn wait_for_acks(&self, seq: u64, patience: Duration) {
        self.evict_unresponsive(seq, Instant::now(), patience * LAG_TIMEOUTS);
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
            self.give_up_on(&behind, seq);
        }
    }

    fn behind(&self, seq: u64) -> Vec<Lagging> {
        let watchers = self.lock();
        let behind = watchers.by_id.iter().filter(|(_, watcher)| watcher.acknowledged < seq && !watcher.lags);
        behind.map(|(id, watcher)| Lagging { id: *id, answers: watcher.answers }).collect()
    }

    fn have_reached(&self, behind: &[Lagging], seq: u64) -> bool {
        let watchers = self.lock();
        behind.iter().all(|Lagging { id, .. }| watchers.by_id.get(id).is_none_or(|watcher| watcher.acknowledged >= seq))
    }

    /// One that is still reading a long way up to here has acknowledged something: it stays, and is not waited for.
    fn give_up_on(&self, behind: &[Lagging], seq: u64) {
        let mut watchers = self.lock();
        for Lagging { id, answers } in behind {
            let Some(watcher) = watchers.by_id.get_mut(id).filter(|watcher| watcher.acknowledged < seq) else {
                continue;
            };
            if watcher.answers == *answers {
                self.dismiss(&mut watchers, *id, seq);
            } else if !watcher.lags {
                watcher.lags = true;
                self.0.metrics.watchers_lagging.inc();
                tracing::warn!(seq, acknowledged = watcher.acknowledged, "watcher of revocations lags");
            }
        }
    }

    /// Those that lag are not waited for, so that it would not be noticed otherwise that they say nothing any more.
    fn evict_unresponsive(&self, seq: u64, now: Instant, most: Duration) {
        let mut watchers = self.lock();
        let is_silent = |watcher: &Watcher| watcher.lags && now.duration_since(watcher.answered_at) >= most;
        let silent: Vec<u64> =
            watchers.by_id.iter().filter(|(_, watcher)| is_silent(watcher)).map(|(id, _)| *id).collect();
        for id in silent {
            self.dismiss(&mut watchers, id, seq);
        }
    }

    fn dismiss(&self, watchers: &mut Watchers, id: u64, seq: u64) {
        self.remove(watchers, id);
        self.0.metrics.watchers_dropped.inc();
        tracing::warn!(seq, "watcher of revocations dropped, it did not acknowledge in time");
    }

    fn acknowledge(&self, id: u64, seq: u64) {
        let newest = *self.0.newest.borrow();
        if let Some(watcher) = self.lock().by_id.get_mut(&id) {
            watcher.acknowledged = watcher.acknowledged.max(seq);
            watcher.answers += 1;
            watcher.answered_at = Instant::now();
            if watcher.lags && watcher.acknowledged >= newest {
                watcher.lags = false;
                self.0.metrics.watchers_lagging.dec();
            }
        }
        self.0.moved.notify_waiters();
    }

    fn remove(&self, watchers: &mut Watchers, id: u64) {
        if let Some(watcher) = watchers.by_id.remove(&id) {
            watcher.dismissed.cancel();
            self.0.metrics.watchers.dec();
            if watcher.lags {
                self.0.metrics.watchers_lagging.dec();
            }
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
    _place: WatcherSlot,
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
mod tests;
