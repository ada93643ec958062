//! Limits of one process.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::future::BoxFuture;
use governor::{
    Quota, RateLimiter as Governor,
    clock::{Clock, DefaultClock, Reference},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};

use super::{Key, LimiterUnavailable, Rate, RateLimiter, Verdict};

/// How often keys are forgotten that stand as if they had never been used, in nanoseconds.
const SWEEP_EVERY: u64 = 10_000_000_000;

type Keyed<C> = Governor<Key, HashMapStateStore<Key>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Limits of this process alone.
#[derive(Debug)]
pub struct LocalLimiter<C: Clock = DefaultClock> {
    governor: Keyed<C>,
    clock: C,
    made: C::Instant,
    /// When keys were forgotten last, in nanoseconds since it was made.
    swept: AtomicU64,
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
        // There is no quota without an interval, which no rate of ours is.
        let quota = Quota::with_period(rate.interval).unwrap_or_else(|| Quota::per_second(rate.burst));
        let governor = Governor::new(quota.allow_burst(rate.burst), HashMapStateStore::default(), clock.clone());
        Self { governor, made: clock.now(), clock, swept: AtomicU64::new(0) }
    }

    /// Counts an attempt, unless it is refused.
    pub fn check_now(&self, key: Key) -> Verdict {
        self.sweep();
        match self.governor.check_key(&key) {
            Ok(()) => Verdict::Pass,
            Err(not_until) => Verdict::Wait(not_until.wait_time_from(self.clock.now())),
        }
    }

    /// Forgets keys that stand as if they had never been used: an attacker has many.
    fn sweep(&self) {
        let now = self.clock.now().duration_since(self.made).as_u64();
        let swept = self.swept.load(Relaxed);
        let is_due = now.saturating_sub(swept) >= SWEEP_EVERY;
        // Of several that find it due, one sweeps.
        if is_due && self.swept.compare_exchange(swept, now, Relaxed, Relaxed).is_ok() {
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
    fn check(&self, key: Key) -> BoxFuture<'_, Result<Verdict, LimiterUnavailable>> {
        Box::pin(std::future::ready(Ok(self.check_now(key))))
    }
}
