//! What one watcher is told: all that is still of use, then whatever comes, and signs of life in between.
//!
//! A feed reads the store from its cursor, whether the watcher is new, has been away, or is up to date. So there is
//! no difference between a snapshot and what follows it, and nothing can fall between them.
//!
//! While the store is away a watcher hears nothing, not even a sign of life, so that it knows of its own blindness. It
//! stays connected all the same: who revokes something as soon as the store is back waits for it as ever.

use std::{mem, sync::Arc, time::Duration};

use drystone_mesh::{clock::Clock, error::Chain};
use tokio::{
    select,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    hub::{Acknowledger, Event, Hub, Subscription, WatcherSlot},
    revocation::Revocation,
    store::{SessionStore, StoreError},
};

/// How many revocations one message holds at most.
const BATCH: u32 = 1000;

/// What a feed is made of.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) hub: Hub,
    pub(crate) clock: Clock,
    pub(crate) heartbeat: Duration,
    pub(crate) stop: CancellationToken,
}

/// What a watcher is told at once.
#[derive(Debug)]
pub(crate) struct Batch {
    /// What is new; empty in a sign of life.
    pub(crate) revocations: Vec<Revocation>,
    /// Where that ends.
    pub(crate) cursor: u64,
}

/// Why a feed breaks off: the watcher did not acknowledge in time.
#[derive(Debug)]
pub(crate) struct Dismissed;

/// What one watcher is told.
pub(crate) struct Feed {
    source: Source,
    subscription: Subscription,
    heartbeat: Interval,
    cursor: u64,
    /// Whether the store may hold something that has not been read.
    read_due: bool,
    /// Whether the watcher is to hear something even if nothing is new.
    sign_due: bool,
    /// Whether the store could not be read the last time.
    blind: bool,
}

impl Feed {
    /// A feed for a watcher that has applied everything up to `cursor`; its first batch comes at once.
    pub(crate) fn open(source: Source, place: WatcherSlot, cursor: u64) -> Self {
        let subscription = source.hub.subscribe(place, cursor);
        let mut heartbeat = interval_at(Instant::now() + source.heartbeat, source.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { source, subscription, heartbeat, cursor, read_due: true, sign_due: true, blind: false }
    }

    /// What takes the watcher's acknowledgements.
    pub(crate) fn acknowledger(&self) -> Acknowledger {
        self.subscription.acknowledger()
    }

    /// Waits for what is to be told next; `None` when the service stops.
    pub(crate) async fn next(&mut self) -> Option<Result<Batch, Dismissed>> {
        loop {
            if mem::take(&mut self.read_due) {
                match self.read().await {
                    Err(error) => self.lose_sight(&error),
                    Ok(revocations) => {
                        self.blind = false;
                        if !revocations.is_empty() {
                            return Some(Ok(self.batch(revocations)));
                        }
                    }
                }
            }
            if self.sign_due && !self.blind {
                return Some(Ok(self.batch(Vec::new())));
            }
            select! {
                biased;
                () = self.source.stop.cancelled() => return None,
                event = self.subscription.next() => match event {
                    Event::News => self.read_due = true,
                    Event::Dismissed => return Some(Err(Dismissed)),
                },
                // The store is read as well: another process may have written there, or a call that was broken off.
                _ = self.heartbeat.tick() => {
                    self.read_due = true;
                    self.sign_due = true;
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Vec<Revocation>, StoreError> {
        // Before the reading, so that what comes during it is news.
        self.subscription.mark_read();
        let store = &self.source.store;
        let now = self.source.clock.now();
        let mut revocations = store.revocations_after(self.cursor, BATCH, now).await?;
        if revocations.is_empty() {
            let newest = store.newest_revocation().await?;
            // A cursor from beyond the end is that of a store whose history was lost.
            if self.cursor > newest {
                tracing::warn!(cursor = self.cursor, "the store has lost revocations, a watcher starts over");
                self.cursor = 0;
                self.subscription.start_over();
                self.sign_due = true;
            }
            // Once more, for what has come between the two questions.
            revocations = store.revocations_after(self.cursor, BATCH, now).await?;
            if revocations.is_empty() && self.cursor < newest {
                // What stands up to there has expired: whoever waits for it need not wait for this watcher.
                self.cursor = newest;
                self.sign_due = true;
            }
        }
        self.read_due = revocations.len() == BATCH as usize;
        Ok(revocations)
    }

    /// What is due stays so until the store can be read again.
    fn lose_sight(&mut self, error: &StoreError) {
        if !self.blind {
            tracing::warn!(cause = %Chain(error), "revocations cannot be read, a watcher hears nothing");
        }
        self.blind = true;
    }

    fn batch(&mut self, revocations: Vec<Revocation>) -> Batch {
        self.sign_due = false;
        self.cursor = revocations.last().map_or(self.cursor, |revocation| revocation.seq);
        Batch { revocations, cursor: self.cursor }
    }
}
