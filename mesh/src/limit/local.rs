//! Rate limits counted in the process.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::future::BoxFuture;
use governor::{
    Quota, RateLimiter as Governor,
    clock::{Clock, DefaultClock, Reference},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};

use super::{Decision, Key, LimiterUnavailable, Rate, RateLimiter};

/// How often keys with a full burst are removed, in nanoseconds.
const SWEEP_INTERVAL: u64 = 10_000_000_000;

type Keyed<C> = Governor<Key, HashMapStateStore<Key>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A limiter that counts in this process.
#[derive(Debug)]
pub struct LocalLimiter<C: Clock = DefaultClock> {
    governor: Keyed<C>,
    clock: C,
    created: C::Instant,
    /// The time of the last sweep, in nanoseconds since `created`.
    last_sweep: AtomicU64,
}

impl LocalLimiter {
    /// A limiter of this rate.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self::with_clock(rate, DefaultClock::default())
    }
}

impl<C: Clock + Clone> LocalLimiter<C> {
    pub(super) fn with_clock(rate: Rate, clock: C) -> Self {
        // `None` only for a zero interval, which no rate has.
        let quota = Quota::with_period(rate.interval).unwrap_or_else(|| Quota::per_second(rate.burst));
        let governor = Governor::new(quota.allow_burst(rate.burst), HashMapStateStore::default(), clock.clone());
        Self { governor, created: clock.now(), clock, last_sweep: AtomicU64::new(0) }
    }

    /// Counts an attempt, unless it is denied.
    pub fn check_now(&self, key: Key) -> Decision {
        self.sweep();
        match self.governor.check_key(&key) {
            Ok(()) => Decision::Allow,
            Err(not_until) => Decision::RetryAfter(not_until.wait_time_from(self.clock.now())),
        }
    }

    /// Removes keys with a full burst, which bounds the memory that an attacker with many addresses can use.
    fn sweep(&self) {
        let now = self.clock.now().duration_since(self.created).as_u64();
        let last_sweep = self.last_sweep.load(Relaxed);
        let is_due = now.saturating_sub(last_sweep) >= SWEEP_INTERVAL;
        // Only one of several concurrent callers sweeps.
        if is_due && self.last_sweep.compare_exchange(last_sweep, now, Relaxed, Relaxed).is_ok() {
            self.governor.retain_recent();
            self.governor.shrink_to_fit();
        }
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.governor.len()
    }
}

impl<C> RateLimiter for LocalLimiter<C>
where
    C: Clock + Clone + Send + Sync,
    C::Instant: Send + Sync,
{
    fn check(&self, key: Key) -> BoxFuture<'_, Result<Decision, LimiterUnavailable>> {
        Box::pin(std::future::ready(Ok(self.check_now(key))))
    }
}
