//! Rate limits: so many attempts at once, and so many in a while.
//!
//! A service asks [`Limits`] for each [`Limit`] that it has, once, and [checks](Limit::check) it for each attempt:
//!
//! ```
//! use drystone_mesh::{
//!     limit::{Key, Limits},
//!     telemetry::Metrics,
//! };
//!
//! # async fn example(client: std::net::IpAddr) -> Result<(), drystone_mesh::error::Error> {
//! let limits = Limits::in_process(&Metrics::default());
//! let sign_in = limits.limit("sign_in_address", 10);
//! sign_in.check(Key::client(client)).await?; // RATE_LIMITED with a time to come back, for the eleventh at once
//! # Ok(())
//! # }
//! ```
//!
//! The algorithm is GCRA (ITU-T I.371): an attempt passes unless it comes too early by more than the burst allows.
//! **What is promised**: in any stretch of time `T`, at most `burst + T / interval` attempts with one key pass. For "10 a
//! minute" that is 10 at once and then one in 6 seconds.
//!
//! Limits are kept in the process ([`LocalLimiter`]), or in Redis for all instances together ([`RedisLimiter`]). While
//! Redis is away, each instance keeps a stricter limit of its own ([`FallbackLimiter`]): half the burst, at half the
//! rate. It is never none.

mod class;
mod fallback;
mod key;
mod local;
mod rate;
mod redis;

use std::{fmt, sync::Arc};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

pub use self::{
    class::{ClassLimits, check_client},
    fallback::FallbackLimiter,
    key::Key,
    local::LocalLimiter,
    rate::{Rate, Verdict},
    redis::RedisLimiter,
};
use crate::{
    error::{Error, Reason, Result},
    store::redis::{Failure, Redis},
    telemetry::Metrics,
};

/// Counts attempts by key, and says which may pass.
pub trait RateLimiter: Send + Sync {
    /// Counts an attempt, unless it is refused.
    ///
    /// # Errors
    /// It is not known whether the attempt may pass, since what counts is away.
    fn check(&self, key: Key) -> impl Future<Output = Result<Verdict, Failure>> + Send;
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    limit: String,
}

/// Makes limits that are counted in one place. A process has one, since it is what counts refusals.
#[derive(Debug, Clone)]
pub struct Limits {
    redis: Option<Redis>,
    refused: Family<Labels, Counter>,
    fallen_back: Family<Labels, Counter>,
}

impl Limits {
    /// Limits of this process alone.
    #[must_use]
    pub fn in_process(metrics: &Metrics) -> Self {
        Self::new(None, metrics)
    }

    /// Limits of all processes with this Redis.
    #[must_use]
    pub fn in_redis(redis: Redis, metrics: &Metrics) -> Self {
        Self::new(Some(redis), metrics)
    }

    fn new(redis: Option<Redis>, metrics: &Metrics) -> Self {
        let this = Self { redis, refused: Family::default(), fallen_back: Family::default() };
        metrics.register(|registry| {
            registry.register("drystone_rate_limited", "Attempts that were refused, by limit", this.refused.clone());
            registry.register(
                "drystone_rate_limit_fallbacks",
                "Attempts that were counted by a stricter limit of the process, since Redis was away",
                this.fallen_back.clone(),
            );
        });
        this
    }

    /// A limit of so many attempts a minute with one key; 0 for none.
    #[must_use]
    pub fn limit(&self, name: &str, per_minute: u32) -> Limit {
        let limiter = Rate::per_minute(per_minute).map(|rate| Arc::new(self.limiter(name, rate)));
        Limit { limiter, refused: self.refused.get_or_create_owned(&Labels { limit: name.to_owned() }) }
    }

    fn limiter(&self, name: &str, rate: Rate) -> Limiter {
        match &self.redis {
            None => Limiter::InProcess(LocalLimiter::new(rate)),
            Some(redis) => {
                let fallen_back = self.fallen_back.get_or_create_owned(&Labels { limit: name.to_owned() });
                let shared = RedisLimiter::new(redis.clone(), name, rate);
                Limiter::InRedis(FallbackLimiter::new(shared, rate, fallen_back))
            }
        }
    }
}

/// What counts. The two are told apart here and not behind a pointer, so that counting in the process costs no boxed
/// future.
enum Limiter {
    InProcess(LocalLimiter),
    InRedis(FallbackLimiter),
}

/// One limit. Clones count together.
#[derive(Clone)]
pub struct Limit {
    limiter: Option<Arc<Limiter>>,
    refused: Counter,
}

impl Limit {
    /// A limit that lets everything pass.
    #[must_use]
    pub fn none() -> Self {
        Self { limiter: None, refused: Counter::default() }
    }

    /// Counts an attempt with this key.
    ///
    /// # Errors
    /// `RATE_LIMITED`, which says when to come back.
    pub async fn check(&self, key: Key) -> Result<()> {
        let verdict = match self.limiter.as_deref() {
            None => return Ok(()),
            Some(Limiter::InProcess(limiter)) => limiter.check_now(key),
            Some(Limiter::InRedis(limiter)) => limiter.check(key).await?,
        };
        let Verdict::Wait(wait) = verdict else { return Ok(()) };
        self.refused.inc();
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let message = format!("too many attempts; try again in {seconds} s");
        Err(Error::new(Reason::RateLimited, message).retry_after(wait))
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("is_on", &self.limiter.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
