//! The breaker: when Redis is taken to be away, and how it is found to be back.
//!
//! While the circuit is closed, commands go to the link. After some failures in a row it opens: commands fail at once,
//! and one task alone tries to connect anew, again and again. What it has connected and heard from becomes the link,
//! and the circuit is closed. So no caller is ever used to find out whether Redis is back, and a connection that hangs,
//! or whose login went stale, is replaced by a new one.

use std::{
    sync::{
        Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{sync::watch, time::sleep};

use super::{Failure, Inner, servers::Link};

/// How many failures in a row open the circuit.
const FAILURES: u32 = 5;
/// The first and the longest wait between two attempts to connect.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The breaker.
pub(super) struct Circuit {
    link: ArcSwapOption<Link>,
    /// In a row.
    failures: AtomicU32,
    /// Why the circuit is open; `None` while it is closed.
    trouble: watch::Sender<Option<String>>,
}

impl Circuit {
    /// One that was never closed.
    pub(super) fn open() -> Self {
        let (trouble, _) = watch::channel(Some("not connected yet".to_owned()));
        Self { link: ArcSwapOption::empty(), failures: AtomicU32::new(0), trouble }
    }

    /// What a command goes to.
    pub(super) fn link(&self) -> Result<Link, Failure> {
        let link = self.link.load();
        link.as_deref().cloned().ok_or_else(|| Failure::Away(self.trouble.borrow().clone().unwrap_or_default()))
    }

    /// Waits until the circuit is closed.
    pub(super) async fn closed(&self) {
        // The sender lives as long as this, so that the wait cannot fail.
        let _ = self.trouble.subscribe().wait_for(Option::is_none).await;
    }

    /// Redis has answered.
    pub(super) fn succeeded(&self) {
        // Most often it is nought, and then the cache line need not be taken from the other threads.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Redis has not answered, or cannot serve. Answers whether this opened the circuit; whoever is told so has to see
    /// to it that it is mended.
    pub(super) fn failed(&self, failure: &Failure) -> bool {
        let is_last_straw = self.failures.fetch_add(1, Ordering::Relaxed) + 1 == FAILURES;
        if !is_last_straw || self.link.swap(None).is_none() {
            return false;
        }
        tracing::warn!(cause = %crate::error::Chain(failure), "redis is away");
        self.trouble.send_replace(Some(failure.to_string()));
        true
    }

    /// Why the circuit is open, from now on.
    #[cfg(test)]
    pub(super) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    fn close(&self, link: Link) {
        self.failures.store(0, Ordering::Relaxed);
        self.link.store(Some(link.into()));
        self.trouble.send_replace(None);
    }
}

/// Connects, however long it takes, and closes the circuit; or ends when nobody is left who would use it.
pub(super) async fn mend(redis: Weak<Inner>) {
    let mut wait = WAITS.0;
    let mut told = String::new();
    loop {
        let Some(redis) = redis.upgrade() else { return };
        match redis.servers.connect(redis.limit).await {
            Ok(link) => {
                tracing::info!("redis is connected");
                return redis.circuit.close(link);
            }
            Err(error) => {
                let trouble = error.to_string();
                // Each cause is told once, not with each attempt.
                if trouble != told {
                    tracing::warn!(cause = trouble, "redis cannot be reached");
                    told.clone_from(&trouble);
                }
                redis.circuit.trouble.send_replace(Some(trouble));
            }
        }
        drop(redis);
        sleep(wait).await;
        wait = WAITS.1.min(wait * 2);
    }
}
