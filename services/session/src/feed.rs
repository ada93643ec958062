//! The stream to one watcher: a snapshot of the revocations that still matter, then new ones, with heartbeats in
//! between.
//!
//! A feed reads the store from its cursor, whether the watcher is new, has reconnected, or is up to date. So a snapshot
//! and the revocations after it are the same thing, and none can be missed between them.
//!
//! While the store is unavailable a watcher receives nothing, not even heartbeats, so that it notices that it is out of
//! date. It stays connected: a call that revokes once the store has recovered waits for it as usual.

use std::{mem, sync::Arc, time::Duration};

use drystone_mesh::{clock::Clock, error::Chain, token::MAX_REVOCATIONS};
use tokio::{
    select,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    hub::{Acknowledger, Event, Hub, Subscription, WatcherSlot},
    revocation::Revocation,
    session::MAX_CLOCK_JUMP,
    store::{SessionStore, StoreError},
};

/// The maximum number of revocations in one message. After one with fewer, a watcher knows all of them.
const MAX_BATCH_SIZE: u32 = MAX_REVOCATIONS;

/// The dependencies of every feed.
#[derive(Clone)]
pub(crate) struct FeedContext {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) hub: Hub,
    pub(crate) clock: Clock,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) stop: CancellationToken,
}

/// One message to a watcher.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The new revocations; empty in a heartbeat.
    pub(crate) revocations: Vec<Revocation>,
    /// The cursor after them.
    pub(crate) cursor: u64,
}

/// The watcher was evicted: it did not acknowledge in time.
#[derive(Debug)]
pub(crate) struct Evicted;

/// The stream to one watcher.
pub(crate) struct Feed {
    context: FeedContext,
    subscription: Subscription,
    heartbeat: Interval,
    cursor: u64,
    /// Whether the store may hold revocations that have not been read.
    is_read_due: bool,
    /// Whether a message is due even without new revocations.
    is_heartbeat_due: bool,
    /// Whether the last read of the store failed.
    has_read_failed: bool,
}

impl Feed {
    /// A feed for a watcher that has applied every revocation up to `cursor`; its first batch is due at once.
    pub(crate) fn open(context: FeedContext, slot: WatcherSlot, cursor: u64) -> Self {
        let subscription = context.hub.subscribe(slot, cursor);
        let period = context.heartbeat_interval;
        let mut heartbeat = interval_at(Instant::now() + period, period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            context,
            subscription,
            heartbeat,
            cursor,
            is_read_due: true,
            is_heartbeat_due: true,
            has_read_failed: false,
        }
    }

    /// The receiver of the watcher's acknowledgements.
    pub(crate) fn acknowledger(&self) -> Acknowledger {
        self.subscription.acknowledger()
    }

    /// Waits for the next batch; `None` when the service stops.
    pub(crate) async fn next(&mut self) -> Option<Result<Batch, Evicted>> {
        loop {
            if mem::take(&mut self.is_read_due) {
                match self.read().await {
                    Err(error) => self.record_read_failure(&error),
                    Ok(revocations) => {
                        self.has_read_failed = false;
                        if !revocations.is_empty() {
                            return Some(Ok(self.batch(revocations)));
                        }
                    }
                }
            }
            if self.is_heartbeat_due && !self.has_read_failed {
                return Some(Ok(self.batch(Vec::new())));
            }
            select! {
                biased;
                () = self.context.stop.cancelled() => return None,
                event = self.subscription.next() => match event {
                    Event::NewRevocations => self.is_read_due = true,
                    Event::Evicted => return Some(Err(Evicted)),
                },
                // The store is read as well: another process may have written there, or a call that was cancelled.
                _ = self.heartbeat.tick() => {
                    self.is_read_due = true;
                    self.is_heartbeat_due = true;
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Vec<Revocation>, StoreError> {
        // Before the read, so that what is announced during it causes another one.
        self.subscription.mark_read();
        let store = &self.context.store;
        let expired_before = self.context.clock.now() - MAX_CLOCK_JUMP;
        let mut revocations = store.revocations_after(self.cursor, MAX_BATCH_SIZE, expired_before).await?;
        if revocations.is_empty() {
            let newest = store.newest_revocation().await?;
            // A cursor beyond the newest revocation belongs to a history that the store has lost.
            if self.cursor > newest {
                tracing::warn!(
                    cursor = self.cursor,
                    "the store has lost revocations, a watcher starts from all revocations again"
                );
                self.cursor = 0;
                self.subscription.reset_acknowledged();
                self.is_heartbeat_due = true;
            }
            // Again, for revocations that were added between the two queries.
            revocations = store.revocations_after(self.cursor, MAX_BATCH_SIZE, expired_before).await?;
            if revocations.is_empty() && self.cursor < newest {
                // Everything up to there has expired: no call needs to wait for this watcher because of it.
                self.cursor = newest;
                self.is_heartbeat_due = true;
            }
        }
        self.is_read_due = revocations.len() >= MAX_BATCH_SIZE as usize;
        Ok(revocations)
    }

    /// A due heartbeat stays due until the store can be read again.
    fn record_read_failure(&mut self, error: &StoreError) {
        if !self.has_read_failed {
            tracing::warn!(cause = %Chain(error), "revocations cannot be read, heartbeats to a watcher are suspended");
        }
        self.has_read_failed = true;
    }

    fn batch(&mut self, revocations: Vec<Revocation>) -> Batch {
        // After a full batch the watcher waits for the next message, even if nothing follows.
        self.is_heartbeat_due = revocations.len() >= MAX_BATCH_SIZE as usize;
        self.cursor = revocations.last().map_or(self.cursor, |revocation| revocation.seq);
        Batch { revocations, cursor: self.cursor }
    }
}
