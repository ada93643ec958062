//! Rate limits shared by all processes, counted in Redis.

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

static REFUND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("limit/refund.lua")));

/// The maximum number of cached refusals. An evicted one costs a round trip.
const MAX_CACHED_REFUSALS: usize = 1024;

/// Rate limits shared by all processes that use the same Redis.
#[derive(Debug, Clone)]
pub struct RedisLimits(Redis);

impl RedisLimits {
    /// Rate limits in this Redis.
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

/// One rate limit shared by all processes that use the same Redis. It uses the clock of Redis, so the clocks of the
/// processes may differ. A key expires when its state equals that of an unused key.
///
/// Each attempt is a round trip, unless Redis has refused the key before: until the time it reported, every attempt is
/// refused locally, since attempts of other processes can only postpone it. So a flood of attempts with one key does
/// not reach Redis: each process sends about two commands per interval.
#[derive(Debug)]
pub struct RedisLimiter {
    redis: Redis,
    name: String,
    rate: Rate,
    /// Until when attempts with a key are refused.
    refused: Cache<Key, Instant>,
}

impl RedisLimiter {
    /// A limiter with this rate. The name distinguishes its keys from those of other limits.
    #[must_use]
    pub fn new(redis: Redis, name: impl Into<String>, rate: Rate) -> Self {
        Self { redis, name: name.into(), rate, refused: Cache::new(MAX_CACHED_REFUSALS) }
    }

    /// The remaining wait of a key that Redis has refused.
    fn cached_wait(&self, key: Key) -> Option<Duration> {
        let wait = self.refused.get(&key)?.saturating_duration_since(Instant::now());
        (!wait.is_zero()).then_some(wait)
    }

    async fn acquire(&self, key: Key) -> Result<Decision, LimiterUnavailable> {
        if let Some(wait) = self.cached_wait(key) {
            return Ok(Decision::RetryAfter(wait));
        }
        let mut script = GCRA.prepare_invoke();
        script.key(self.redis_key(key));
        script.arg(self.rate.interval.as_micros().to_string()).arg(self.rate.burst.get());
        let wait_micros: u64 = self.redis.run(&script).await?;
        if wait_micros == 0 {
            return Ok(Decision::Allow);
        }
        let wait = Duration::from_micros(wait_micros);
        self.refused.insert(key, Instant::now() + wait);
        Ok(Decision::RetryAfter(wait))
    }

    async fn give_back(&self, key: Key) -> Result<(), LimiterUnavailable> {
        let mut script = REFUND.prepare_invoke();
        script.key(self.redis_key(key)).arg(self.rate.interval.as_micros().to_string());
        let _: u64 = self.redis.run(&script).await?;
        self.refused.remove(&key);
        Ok(())
    }

    fn redis_key(&self, key: Key) -> String {
        format!("{}limit:{{{}:{key}}}", self.redis.prefix(), self.name)
    }
}

impl RateLimiter for RedisLimiter {
    fn check(&self, key: Key) -> BoxFuture<'_, Result<Decision, LimiterUnavailable>> {
        Box::pin(self.acquire(key))
    }

    fn refund(&self, key: Key) -> BoxFuture<'_, Result<(), LimiterUnavailable>> {
        Box::pin(self.give_back(key))
    }
}

#[cfg(test)]
mod tests;
