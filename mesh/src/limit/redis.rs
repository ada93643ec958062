//! Limits of all processes together, counted in Redis.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use quick_cache::sync::Cache;

use super::{Key, Rate, RateLimiter, Verdict};
use crate::store::redis::{Failure, Redis, Script};

static GCRA: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("gcra.lua")));

/// How many refusals are remembered. One that is forgotten costs a question.
const REFUSALS: usize = 1024;

/// Limits of all processes with one Redis. The time is that of Redis, so that their clocks may differ. Keys expire by
/// themselves, each when it stands as if it had never been used.
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
        Self { redis, name: name.into(), rate, refused: Cache::new(REFUSALS) }
    }

    /// How long the key has to wait by what Redis has said before.
    fn known_wait(&self, key: Key) -> Option<Duration> {
        let wait = self.refused.get(&key)?.saturating_duration_since(Instant::now());
        (!wait.is_zero()).then_some(wait)
    }
}

impl RateLimiter for RedisLimiter {
    async fn check(&self, key: Key) -> Result<Verdict, Failure> {
        if let Some(wait) = self.known_wait(key) {
            return Ok(Verdict::Wait(wait));
        }
        let mut script = GCRA.prepare_invoke();
        script.key(format!("{}limit:{{{}:{key}}}", self.redis.prefix(), self.name));
        script.arg(self.rate.interval.as_micros().to_string()).arg(self.rate.burst.get());
        let early: u64 = self.redis.run(&script).await?;
        if early == 0 {
            return Ok(Verdict::Pass);
        }
        let wait = Duration::from_micros(early);
        self.refused.insert(key, Instant::now() + wait);
        Ok(Verdict::Wait(wait))
    }
}
