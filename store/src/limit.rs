//! Limits of all processes together, counted in Redis.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use drystone_mesh::{
    health::Component,
    limit::{Decision, Key, LimitStore, LimiterUnavailable, Rate, RateLimiter},
};
use futures_util::future::BoxFuture;
use quick_cache::sync::Cache;
use tokio_util::sync::CancellationToken;

use crate::redis::{self, Redis, Script};

static GCRA: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("limit/gcra.lua")));

/// How many refusals are cached. One that is evicted costs a round trip.
const MAX_CACHED_REFUSALS: usize = 1024;

/// Where the limits of all processes with one Redis are counted.
#[derive(Debug, Clone)]
pub struct RedisLimits(Redis);

impl RedisLimits {
    /// Counts in this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self(redis)
    }
}

impl LimitStore for RedisLimits {
    fn limiter(&self, name: &str, rate: Rate) -> Arc<dyn RateLimiter> {
        Arc::new(RedisLimiter::new(self.0.clone(), name, rate))
    }

    fn probe(&self, component: Component, stop: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(redis::probe(self.0.clone(), component, stop))
    }
}

/// One limit of all processes with one Redis. The time is that of Redis, so that their clocks may differ. Keys expire by
/// themselves, each when its state is that of one that was never used.
///
/// Each attempt is a round trip, unless Redis has just said that the key has to wait: until then the answer is known,
/// since nothing that others do makes it come sooner. So a flood with one key does not become a flood for Redis: each
/// process asks about twice in an interval, whatever comes.
#[derive(Debug)]
pub struct RedisLimiter {
    redis: Redis,
    name: String,
    rate: Rate,
    /// Until when a key was told to wait.
    refused: Cache<Key, Instant>,
}

impl RedisLimiter {
    /// A limiter of this rate. The name tells its keys from those of other limits.
    #[must_use]
    pub fn new(redis: Redis, name: impl Into<String>, rate: Rate) -> Self {
        Self { redis, name: name.into(), rate, refused: Cache::new(MAX_CACHED_REFUSALS) }
    }

    /// How long the key has to wait by an earlier answer of Redis.
    fn known_wait(&self, key: Key) -> Option<Duration> {
        let wait = self.refused.get(&key)?.saturating_duration_since(Instant::now());
        (!wait.is_zero()).then_some(wait)
    }

    async fn count(&self, key: Key) -> Result<Decision, LimiterUnavailable> {
        if let Some(wait) = self.known_wait(key) {
            return Ok(Decision::RetryAfter(wait));
        }
        let mut script = GCRA.prepare_invoke();
        script.key(format!("{}limit:{{{}:{key}}}", self.redis.prefix(), self.name));
        script.arg(self.rate.interval.as_micros().to_string()).arg(self.rate.burst.get());
        let early: u64 = self.redis.run(&script).await?;
        if early == 0 {
            return Ok(Decision::Allow);
        }
        let wait = Duration::from_micros(early);
        self.refused.insert(key, Instant::now() + wait);
        Ok(Decision::RetryAfter(wait))
    }
}

impl RateLimiter for RedisLimiter {
    fn check(&self, key: Key) -> BoxFuture<'_, Result<Decision, LimiterUnavailable>> {
        Box::pin(self.count(key))
    }
}

#[cfg(test)]
mod tests;
