//! The circuit breaker of a Redis connection.
//!
//! While the circuit is closed, commands use the link. After [`FAILURE_THRESHOLD`] consecutive failures it opens: commands
//! fail at once, and one task reconnects with backoff. A new connection that has answered becomes the link, and closes the
//! circuit. So no caller waits to find out whether Redis has recovered, and a connection that hangs, or whose login has
//! become invalid, is replaced.

use std::{
    sync::{
        Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use drystone_mesh::backoff::Backoff;
use tokio::{sync::watch, time::sleep};

use super::{Failure, Inner, servers::Link};

/// How many consecutive failures open the circuit.
const FAILURE_THRESHOLD: u32 = 5;

/// The bounds of the backoff between two attempts to connect.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The breaker.
pub(super) struct Circuit {
    link: ArcSwapOption<Link>,
    /// Consecutive ones.
    failures: AtomicU32,
    /// Why the circuit is open; `None` while it is closed.
    cause: watch::Sender<Option<String>>,
}

impl Circuit {
    /// An open circuit that has never been closed.
    pub(super) fn open() -> Self {
        let (cause, _) = watch::channel(Some("not connected yet".to_owned()));
        Self { link: ArcSwapOption::empty(), failures: AtomicU32::new(0), cause }
    }

    /// The connection for a command.
    pub(super) fn link(&self) -> Result<Link, Failure> {
        let link = self.link.load();
        link.as_deref().cloned().ok_or_else(|| Failure::Unavailable(self.cause.borrow().clone().unwrap_or_default()))
    }

    /// Waits until the circuit is closed.
    pub(super) async fn closed(&self) {
        // The sender lives as long as this, so that the wait cannot fail.
        let _ = self.cause.subscribe().wait_for(Option::is_none).await;
    }

    /// Records that Redis has answered.
    pub(super) fn succeeded(&self) {
        // Mostly it is 0, and then the cache line is not written, which other threads share.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Records that Redis has not answered, or cannot serve. Returns whether this opened the circuit; its caller then
    /// starts [`reconnect`].
    pub(super) fn failed(&self, failure: &Failure) -> bool {
        let has_reached_threshold = self.failures.fetch_add(1, Ordering::Relaxed) + 1 == FAILURE_THRESHOLD;
        if !has_reached_threshold || self.link.swap(None).is_none() {
            return false;
        }
        tracing::warn!(cause = %drystone_mesh::error::Chain(failure), "redis is unavailable");
        self.cause.send_replace(Some(failure.to_string()));
        true
    }

    /// Why the circuit is open, from now on.
    #[cfg(test)]
    pub(super) fn cause(&self) -> watch::Receiver<Option<String>> {
        self.cause.subscribe()
    }

    fn close(&self, link: Link) {
        self.failures.store(0, Ordering::Relaxed);
        self.link.store(Some(link.into()));
        self.cause.send_replace(None);
    }
}

/// Connects with backoff until it succeeds, and closes the circuit; ends when no clone of the Redis is left.
pub(super) async fn reconnect(redis: Weak<Inner>) {
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    let mut logged = String::new();
    loop {
        let Some(redis) = redis.upgrade() else { return };
        match redis.servers.connect(redis.limit).await {
            Ok(link) => {
                tracing::info!("redis is connected");
                return redis.circuit.close(link);
            }
            Err(error) => {
                let cause = error.to_string();
                // Each cause is logged once, not with each attempt.
                if cause != logged {
                    tracing::warn!(cause = cause, "redis cannot be reached");
                    logged.clone_from(&cause);
                }
                redis.circuit.cause.send_replace(Some(cause));
            }
        }
        drop(redis);
        sleep(backoff.failed()).await;
    }
}
