//! Rate limits counted in the process.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;

use super::{Decision, Key, LimiterUnavailable, Rate, RateLimiter};

/// How often keys with a full burst are removed from a shard, in nanoseconds.
const SWEEP_INTERVAL: u64 = 10_000_000_000;

/// Keys are distributed over shards, so that concurrent attempts seldom wait for each other.
const SHARDS: usize = 16;

/// A limiter that counts in this process (GCRA, ITU-T I.371).
#[derive(Debug)]
pub struct LocalLimiter {
    interval: u64,
    burst: u64,
    started: Instant,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    /// The theoretical arrival time of the next attempt with each key, in nanoseconds since the start. A key without one has
    /// a full burst.
    due: HashMap<Key, u64>,
    last_sweep: u64,
}

impl LocalLimiter {
    /// A limiter of this rate.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let interval = nanos(rate.interval).max(1);
        Self {
            interval,
            burst: interval.saturating_mul(rate.burst.get().into()),
            started: Instant::now(),
            hasher: RandomState::new(),
            shards: Default::default(),
        }
    }

    /// Counts an attempt, unless it is denied.
    pub fn check_now(&self, key: Key) -> Decision {
        self.check_at(key, nanos(self.started.elapsed()))
    }

    /// Takes back an attempt that was counted.
    pub fn refund_now(&self, key: Key) {
        self.refund_at(key, nanos(self.started.elapsed()));
    }

    pub(super) fn check_at(&self, key: Key, now: u64) -> Decision {
        let mut shard = self.shard(key);
        shard.sweep(now);
        let due = shard.due.get(&key).copied().unwrap_or(now).max(now).saturating_add(self.interval);
        let early = due.saturating_sub(self.burst).saturating_sub(now);
        if early > 0 {
            return Decision::RetryAfter(Duration::from_nanos(early));
        }
        shard.due.insert(key, due);
        Decision::Allow
    }

    pub(super) fn refund_at(&self, key: Key, now: u64) {
        let mut shard = self.shard(key);
        let Some(due) = shard.due.get_mut(&key) else { return };
        *due = due.saturating_sub(self.interval);
        if *due <= now {
            shard.due.remove(&key);
        }
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().due.len()).sum()
    }
}

impl Shard {
    /// Removes keys with a full burst, which bounds the memory that an attacker with many addresses can use.
    fn sweep(&mut self, now: u64) {
        if now.saturating_sub(self.last_sweep) < SWEEP_INTERVAL {
            return;
        }
        self.last_sweep = now;
        self.due.retain(|_, due| *due > now);
        self.due.shrink_to(self.due.len() * 2);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl RateLimiter for LocalLimiter {
    fn check(&self, key: Key) -> BoxFuture<'_, Result<Decision, LimiterUnavailable>> {
        Box::pin(std::future::ready(Ok(self.check_now(key))))
    }

    fn refund(&self, key: Key) -> BoxFuture<'_, Result<(), LimiterUnavailable>> {
        self.refund_now(key);
        Box::pin(std::future::ready(Ok(())))
    }
}
