//! Limits of all processes together, counted in Redis.

use std::{sync::LazyLock, time::Duration};

use async_trait::async_trait;

use super::{Rate, RateLimiter, Verdict};
use crate::store::redis::{Failure, Redis, Script};

static GCRA: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("gcra.lua")));

/// Limits of all processes with one Redis. The time is that of Redis, so that their clocks may differ. Keys expire by
/// themselves, each when it stands as if it had never been used.
#[derive(Debug)]
pub struct RedisLimiter {
    redis: Redis,
    name: &'static str,
    rate: Rate,
}

impl RedisLimiter {
    /// A limiter of this rate. The name tells its keys from those of other limits.
    #[must_use]
    pub fn new(redis: Redis, name: &'static str, rate: Rate) -> Self {
        Self { redis, name, rate }
    }
}

#[async_trait]
impl RateLimiter for RedisLimiter {
    async fn check(&self, key: &str) -> Result<Verdict, Failure> {
        let mut script = GCRA.prepare_invoke();
        script.key(format!("{}limit:{{{}:{key}}}", self.redis.prefix(), self.name));
        script.arg(self.rate.interval.as_micros().to_string()).arg(self.rate.burst.get());
        let early: u64 = self.redis.run(&script).await?;
        Ok(if early == 0 { Verdict::Pass } else { Verdict::Wait(Duration::from_micros(early)) })
    }
}
