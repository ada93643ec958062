//! The watchers of revocations, and what each has acknowledged.
//!
//! The revocations themselves are only in the store. The hub notifies watchers of new revocations to read there, and
//! lets a revoking call wait until all watchers have acknowledged. A watcher that acknowledges slowly delays one call
//! by the acknowledgement timeout, and is then not waited for until it has caught up.

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

/// The maximum number of watchers of one workload, over all its instances.
pub(crate) const MAX_WATCHERS_PER_WORKLOAD: usize = 64;

/// The maximum number of watchers in total.
pub(crate) const MAX_WATCHERS: usize = 1024;

/// A lagging watcher is evicted if it has acknowledged nothing for this many acknowledgement timeouts. A connected one
/// acknowledges each heartbeat.
const LAG_TIMEOUTS: u32 = 40;

/// The watchers of revocations. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The number of the newest revocation that was announced.
    newest: watch::Sender<u64>,
    watchers: Mutex<Watchers>,
    /// Notified when a watcher acknowledges or is removed.
    progress: Notify,
    metrics: SessionMetrics,
}

#[derive(Debug, Default)]
struct Watchers {
    last_id: u64,
    by_id: HashMap<u64, Watcher>,
    /// The number of slots that each workload uses. `None`: callers without an identity, which only tests have.
    slots: HashMap<Option<SpiffeId>, usize>,
}

#[derive(Debug)]
struct Watcher {
    /// The number of the newest revocation that it has applied.
    acknowledged: u64,
    /// The number of acknowledgements received.
    ack_count: u64,
    last_ack_at: Instant,
    /// Whether it has exceeded an acknowledgement timeout, and has not caught up since.
    is_lagging: bool,
    evicted: CancellationToken,
}

/// The limit of watchers is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooManyWatchers {
    /// The limit of the workload.
    OfWorkload,
    /// The limit in total.
    InTotal,
}

/// A slot for one watcher. It is freed when this is dropped.
#[derive(Debug)]
pub(crate) struct WatcherSlot {
    hub: Hub,
    workload: Option<SpiffeId>,
}

impl Drop for WatcherSlot {
    fn drop(&mut self) {
        let mut watchers = self.hub.lock();
        if let Some(used) = watchers.slots.get_mut(&self.workload) {
            *used -= 1;
            if *used == 0 {
                watchers.slots.remove(&self.workload);
            }
        }
    }
}

/// A watcher that had not acknowledged a revocation when a call began to wait for it.
struct Lagging {
    id: u64,
    /// The number of acknowledgements received by then.
    ack_count: u64,
}

impl Hub {
    pub(crate) fn new(metrics: SessionMetrics) -> Self {
        let (newest, _) = watch::channel(0);
        Self(Arc::new(Inner { newest, watchers: Mutex::default(), progress: Notify::new(), metrics }))
    }

    /// Notifies every watcher that the store has revocations up to this number.
    pub(crate) fn announce(&self, seq: u64) {
        self.0.newest.send_if_modified(|newest| {
            let is_newer = seq > *newest;
            *newest = seq.max(*newest);
            is_newer
        });
    }

    /// Reserves a slot for a watcher of this workload.
    pub(crate) fn reserve(&self, workload: Option<SpiffeId>) -> Result<WatcherSlot, TooManyWatchers> {
        let mut watchers = self.lock();
        if watchers.slots.values().sum::<usize>() >= MAX_WATCHERS {
            return Err(TooManyWatchers::InTotal);
        }
        let used = watchers.slots.entry(workload.clone()).or_default();
        if *used >= MAX_WATCHERS_PER_WORKLOAD {
            return Err(TooManyWatchers::OfWorkload);
        }
        *used += 1;
        Ok(WatcherSlot { hub: self.clone(), workload })
    }

    /// Adds a watcher that has applied every revocation up to `acknowledged`.
    pub(crate) fn subscribe(&self, slot: WatcherSlot, acknowledged: u64) -> Subscription {
        let evicted = CancellationToken::new();
        let mut watchers = self.lock();
        watchers.last_id += 1;
        let id = watchers.last_id;
        let watcher = Watcher {
            acknowledged,
            ack_count: 0,
            last_ack_at: Instant::now(),
            is_lagging: false,
            evicted: evicted.clone(),
        };
        watchers.by_id.insert(id, watcher);
        self.0.metrics.watchers.inc();
        Subscription { hub: self.clone(), id, newest: self.0.newest.subscribe(), evicted, _slot: slot }
    }

    /// Waits until every watcher that is not lagging has acknowledged `seq`, for at most `ack_timeout`. A watcher that
    /// has acknowledged nothing in that time is evicted, so that it reconnects and reads what it missed. One that has
    /// acknowledged something is lagging from then on, until it has caught up.
    pub(crate) async fn wait_for_acks(&self, seq: u64, ack_timeout: Duration) {
        self.evict_unresponsive(seq, Instant::now(), ack_timeout * LAG_TIMEOUTS);
        let lagging = self.lagging(seq);
        let all_acknowledged = async {
            loop {
                let progress = self.0.progress.notified();
                tokio::pin!(progress);
                // Enabled before the check, so that no notification is missed.
                progress.as_mut().enable();
                if self.have_acknowledged(&lagging, seq) {
                    return;
                }
                progress.await;
            }
        };
        if timeout(ack_timeout, all_acknowledged).await.is_err() {
            self.evict_or_mark_lagging(&lagging, seq);
        }
    }

    fn lagging(&self, seq: u64) -> Vec<Lagging> {
        let watchers = self.lock();
        let lagging = watchers.by_id.iter().filter(|(_, watcher)| watcher.acknowledged < seq && !watcher.is_lagging);
        lagging.map(|(id, watcher)| Lagging { id: *id, ack_count: watcher.ack_count }).collect()
    }

    fn have_acknowledged(&self, lagging: &[Lagging], seq: u64) -> bool {
        let watchers = self.lock();
        lagging
            .iter()
            .all(|Lagging { id, .. }| watchers.by_id.get(id).is_none_or(|watcher| watcher.acknowledged >= seq))
    }

    /// A watcher that is still reading a long history has acknowledged parts of it: it stays connected.
    fn evict_or_mark_lagging(&self, lagging: &[Lagging], seq: u64) {
        let mut watchers = self.lock();
        for Lagging { id, ack_count } in lagging {
            let Some(watcher) = watchers.by_id.get_mut(id).filter(|watcher| watcher.acknowledged < seq) else {
                continue;
            };
            if watcher.ack_count == *ack_count {
                self.evict(&mut watchers, *id, seq);
            } else if !watcher.is_lagging {
                watcher.is_lagging = true;
                self.0.metrics.watchers_lagging.inc();
                tracing::warn!(seq, acknowledged = watcher.acknowledged, "revocation watcher is lagging");
            }
        }
    }

    /// Evicts lagging watchers that have acknowledged nothing for `max_idle`. No call waits for them, so nothing else
    /// would notice.
    fn evict_unresponsive(&self, seq: u64, now: Instant, max_idle: Duration) {
        let mut watchers = self.lock();
        let is_unresponsive =
            |watcher: &Watcher| watcher.is_lagging && now.duration_since(watcher.last_ack_at) >= max_idle;
        let unresponsive: Vec<u64> =
            watchers.by_id.iter().filter(|(_, watcher)| is_unresponsive(watcher)).map(|(id, _)| *id).collect();
        for id in unresponsive {
            self.evict(&mut watchers, id, seq);
        }
    }

    fn evict(&self, watchers: &mut Watchers, id: u64, seq: u64) {
        self.remove(watchers, id);
        self.0.metrics.watchers_evicted.inc();
        tracing::warn!(seq, "revocation watcher evicted, it did not acknowledge in time");
    }

    fn acknowledge(&self, id: u64, seq: u64) {
        let newest = *self.0.newest.borrow();
        if let Some(watcher) = self.lock().by_id.get_mut(&id) {
            watcher.acknowledged = watcher.acknowledged.max(seq);
            watcher.ack_count += 1;
            watcher.last_ack_at = Instant::now();
            if watcher.is_lagging && watcher.acknowledged >= newest {
                watcher.is_lagging = false;
                self.0.metrics.watchers_lagging.dec();
            }
        }
        self.0.progress.notify_waiters();
    }

    fn remove(&self, watchers: &mut Watchers, id: u64) {
        if let Some(watcher) = watchers.by_id.remove(&id) {
            watcher.evicted.cancel();
            self.0.metrics.watchers.dec();
            if watcher.is_lagging {
                self.0.metrics.watchers_lagging.dec();
            }
            self.0.progress.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watchers> {
        self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watcher's subscription. The watcher is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Hub,
    id: u64,
    newest: watch::Receiver<u64>,
    evicted: CancellationToken,
    _slot: WatcherSlot,
}

/// An event for a watcher.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The store has new revocations.
    NewRevocations,
    /// The hub has removed the watcher.
    Evicted,
}

impl Subscription {
    /// Waits for an eviction, or for a revocation that is announced after the last [`Subscription::mark_read`].
    pub(crate) async fn next(&mut self) -> Event {
        let Self { newest, evicted, .. } = self;
        select! {
            biased;
            () = evicted.cancelled() => Event::Evicted,
            // The hub outlives its subscriptions, so this cannot fail.
            _ = newest.changed() => Event::NewRevocations,
        }
    }

    /// Marks all revocations that were announced up to now as read.
    pub(crate) fn mark_read(&mut self) {
        self.newest.mark_unchanged();
    }

    /// Resets what the watcher has acknowledged, since the store has lost that history.
    pub(crate) fn reset_acknowledged(&self) {
        if let Some(watcher) = self.hub.lock().by_id.get_mut(&self.id) {
            watcher.acknowledged = 0;
        }
    }

    /// The receiver of this watcher's acknowledgements.
    pub(crate) fn acknowledger(&self) -> Acknowledger {
        Acknowledger { hub: self.hub.clone(), id: self.id, evicted: self.evicted.clone() }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.remove(&mut self.hub.lock(), self.id);
    }
}

/// Receives the acknowledgements of one watcher.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledger {
    hub: Hub,
    id: u64,
    evicted: CancellationToken,
}

impl Acknowledger {
    /// Records that the watcher has applied every revocation up to `seq`.
    pub(crate) fn acknowledge(&self, seq: u64) {
        self.hub.acknowledge(self.id, seq);
    }

    /// Removes the watcher, which can acknowledge nothing more.
    pub(crate) fn remove(&self) {
        self.hub.remove(&mut self.hub.lock(), self.id);
    }

    /// Waits until the watcher is removed.
    pub(crate) fn removed(&self) -> WaitForCancellationFuture<'_> {
        self.evicted.cancelled()
    }
}

#[cfg(test)]
mod tests;
