//! Rate limits: a burst, and a sustained rate.
//!
//! A service creates each [`Limit`] once with [`LimiterFactory`], and [checks](Limit::check) it for each attempt:
//!
//! ```
//! use drystone_mesh::{
//!     limit::{Key, LimiterFactory},
//!     telemetry::Metrics,
//! };
//!
//! # async fn example(client: std::net::IpAddr) -> Result<(), drystone_mesh::error::Error> {
//! let limits = LimiterFactory::in_process(&Metrics::default());
//! let sign_in = limits.limit("sign_in_address", 10);
//! sign_in.check(Key::client(client)).await?; // RATE_LIMITED with a retry delay for the eleventh immediate attempt
//! # Ok(())
//! # }
//! ```
//!
//! The algorithm is GCRA (ITU-T I.371). **Guarantee**: in any interval `T`, at most `burst + T / interval` attempts with one
//! key are allowed. For "10 a minute" that is 10 at once and then one every 6 seconds.
//!
//! Attempts are counted in the process ([`LocalLimiter`]), or in a store shared by all instances ([`LimitStore`]). While the
//! store is unavailable, each instance applies a stricter local limit ([`FallbackLimiter`]): half the burst, at half the
//! rate. Limits never fail open.

mod class;
mod fallback;
mod key;
mod local;
mod rate;
mod shared;

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    class::{ClassLimits, check_call, client_key},
    fallback::FallbackLimiter,
    key::Key,
    local::LocalLimiter,
    rate::{Decision, Rate},
    shared::SharedLimits,
};
use crate::{
    error::{Error, Reason, Result},
    health::Component,
    telemetry::Metrics,
};

/// The store of a shared limiter is unavailable.
pub type LimiterUnavailable = Box<dyn std::error::Error + Send + Sync>;

/// Counts attempts by key, and allows or denies them.
pub trait RateLimiter: Send + Sync {
    /// Counts an attempt, unless it is denied.
    ///
    /// # Errors
    /// [`LimiterUnavailable`].
    fn check(&self, key: Key) -> BoxFuture<'_, Result<Decision, LimiterUnavailable>>;

    /// Takes back an attempt that was counted.
    ///
    /// # Errors
    /// [`LimiterUnavailable`].
    fn refund(&self, key: Key) -> BoxFuture<'_, Result<(), LimiterUnavailable>>;
}

/// A store in which all processes share their limits.
pub trait LimitStore: Send + Sync {
    /// A limiter of this rate. The name separates its keys from those of other limits.
    fn limiter(&self, name: &str, rate: Rate) -> Arc<dyn RateLimiter>;

    /// Reports the health of the store, until `stop`.
    fn probe(&self, component: Component, stop: CancellationToken) -> BoxFuture<'static, ()>;
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    limit: String,
}

/// Creates limits, local or shared. A process has one, which registers the metrics.
#[derive(Clone)]
pub struct LimiterFactory {
    shared: Option<Arc<dyn LimitStore>>,
    limited: Family<Labels, Counter>,
    fallbacks: Family<Labels, Counter>,
}

impl LimiterFactory {
    /// Limits counted in this process.
    #[must_use]
    pub fn in_process(metrics: &Metrics) -> Self {
        let this = Self { shared: None, limited: Family::default(), fallbacks: Family::default() };
        metrics.register(|registry| {
            registry.register("drystone_rate_limited", "Attempts that were denied, by limit", this.limited.clone());
            registry.register(
                "drystone_rate_limit_fallbacks",
                "Attempts that were counted by the stricter local limit, since Redis was unavailable",
                this.fallbacks.clone(),
            );
        });
        this
    }

    /// Limits counted in this store, shared by all processes.
    #[must_use]
    pub fn with_store(self, store: Arc<dyn LimitStore>) -> Self {
        Self { shared: Some(store), ..self }
    }

    /// A limit of `per_minute` attempts with one key; 0 for no limit.
    #[must_use]
    pub fn limit(&self, name: &str, per_minute: u32) -> Limit {
        let limiter = Rate::per_minute(per_minute).map(|rate| Arc::new(self.limiter(name, rate)));
        Limit { limiter, limited: self.limited.get_or_create_owned(&Labels { limit: name.to_owned() }) }
    }

    /// A limit that is counted in this process, even if there is a shared store.
    #[must_use]
    pub fn local(&self, name: &str, per_minute: u32) -> Limit {
        let limiter = Rate::per_minute(per_minute).map(|rate| Arc::new(Limiter::Local(LocalLimiter::new(rate))));
        Limit { limiter, limited: self.limited.get_or_create_owned(&Labels { limit: name.to_owned() }) }
    }

    fn limiter(&self, name: &str, rate: Rate) -> Limiter {
        match &self.shared {
            None => Limiter::Local(LocalLimiter::new(rate)),
            Some(store) => {
                let fallbacks = self.fallbacks.get_or_create_owned(&Labels { limit: name.to_owned() });
                Limiter::Shared(FallbackLimiter::new(store.limiter(name, rate), rate, fallbacks))
            }
        }
    }
}

impl fmt::Debug for LimiterFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimiterFactory").field("is_shared", &self.shared.is_some()).finish_non_exhaustive()
    }
}

/// A local or shared limiter. An enum and not a trait object, so that a local check needs no boxed future.
enum Limiter {
    Local(LocalLimiter),
    Shared(FallbackLimiter),
}

/// One limit. Clones share their counts.
#[derive(Clone)]
pub struct Limit {
    limiter: Option<Arc<Limiter>>,
    limited: Counter,
}

impl Limit {
    /// A limit that allows everything.
    #[must_use]
    pub fn none() -> Self {
        Self { limiter: None, limited: Counter::default() }
    }

    /// Counts an attempt with this key.
    ///
    /// # Errors
    /// `RATE_LIMITED` with a retry delay.
    pub async fn check(&self, key: Key) -> Result<()> {
        self.reserve(key).await.map(drop)
    }

    /// Counts an attempt with this key, which [can be refunded](Reservation::refund).
    ///
    /// # Errors
    /// `RATE_LIMITED` with a retry delay.
    pub async fn reserve(&self, key: Key) -> Result<Reservation> {
        let (decision, counted_by) = match self.limiter.as_deref() {
            None => return Ok(Reservation { limiter: None, key, counted_by: CountedBy::Local }),
            Some(Limiter::Local(limiter)) => (limiter.check_now(key), CountedBy::Local),
            Some(Limiter::Shared(limiter)) => limiter.check(key).await,
        };
        let Decision::RetryAfter(wait) = decision else {
            return Ok(Reservation { limiter: self.limiter.clone(), key, counted_by });
        };
        self.limited.inc();
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let message = format!("too many attempts; try again in {seconds} s");
        Err(Error::new(Reason::RateLimited, message).retry_after(wait))
    }
}

/// A counted attempt. It stays counted when this is dropped.
#[must_use]
pub struct Reservation {
    limiter: Option<Arc<Limiter>>,
    key: Key,
    counted_by: CountedBy,
}

/// Which of the two limiters of a [`FallbackLimiter`] has counted an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedBy {
    /// The store.
    Store,
    /// The process.
    Local,
}

impl Reservation {
    /// Takes the attempt back. If the store is unavailable, the attempt stays counted.
    pub async fn refund(self) {
        match self.limiter.as_deref() {
            None => {}
            Some(Limiter::Local(limiter)) => limiter.refund_now(self.key),
            Some(Limiter::Shared(limiter)) => limiter.refund(self.key, self.counted_by).await,
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("key", &self.key).finish_non_exhaustive()
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("is_enabled", &self.limiter.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
