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
//! Limits are counted in the process ([`LocalLimiter`]), or in a store for all instances together ([`LimitStore`]). While
//! the store is unavailable, each instance applies a stricter limit of its own ([`FallbackLimiter`]): half the burst, at half the
//! rate. It is never none.

mod class;
mod fallback;
mod key;
mod local;
mod rate;

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    class::{ClassLimits, check_client},
    fallback::FallbackLimiter,
    key::Key,
    local::LocalLimiter,
    rate::{Rate, Verdict},
};
use crate::{
    error::{Error, Reason, Result},
    health::Component,
    telemetry::Metrics,
};

/// Why it is not known whether an attempt may pass: the store that counts cannot be reached.
pub type LimiterUnavailable = Box<dyn std::error::Error + Send + Sync>;

/// Counts attempts by key, and says which may pass.
pub trait RateLimiter: Send + Sync {
    /// Counts an attempt, unless it is refused.
    ///
    /// # Errors
    /// [`LimiterUnavailable`].
    fn check(&self, key: Key) -> BoxFuture<'_, Result<Verdict, LimiterUnavailable>>;
}

/// Where limits are counted for all processes together.
pub trait LimitStore: Send + Sync {
    /// A limiter of this rate. The name tells its keys from those of other limits.
    fn limiter(&self, name: &str, rate: Rate) -> Arc<dyn RateLimiter>;

    /// Reports the health of the store, until `stop`.
    fn probe(&self, component: Component, stop: CancellationToken) -> BoxFuture<'static, ()>;
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    limit: String,
}

/// Makes limits that are counted in one place. A process has one, since it is what counts refusals.
#[derive(Clone)]
pub struct Limits {
    shared: Option<Arc<dyn LimitStore>>,
    refused: Family<Labels, Counter>,
    fallen_back: Family<Labels, Counter>,
}

impl Limits {
    /// Limits of this process alone.
    #[must_use]
    pub fn in_process(metrics: &Metrics) -> Self {
        Self::new(None, metrics)
    }

    /// Limits of all processes that count in this store.
    #[must_use]
    pub fn shared(store: Arc<dyn LimitStore>, metrics: &Metrics) -> Self {
        Self::new(Some(store), metrics)
    }

    fn new(shared: Option<Arc<dyn LimitStore>>, metrics: &Metrics) -> Self {
        let this = Self { shared, refused: Family::default(), fallen_back: Family::default() };
        metrics.register(|registry| {
            registry.register("drystone_rate_limited", "Attempts that were refused, by limit", this.refused.clone());
            registry.register(
                "drystone_rate_limit_fallbacks",
                "Attempts that were counted by a stricter limit of the process, since Redis was unavailable",
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
        match &self.shared {
            None => Limiter::Local(LocalLimiter::new(rate)),
            Some(store) => {
                let fallen_back = self.fallen_back.get_or_create_owned(&Labels { limit: name.to_owned() });
                Limiter::Shared(FallbackLimiter::new(store.limiter(name, rate), rate, fallen_back))
            }
        }
    }

    /// Where all processes count together, if they do.
    pub(crate) fn store(&self) -> Option<&dyn LimitStore> {
        self.shared.as_deref()
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("is_shared", &self.shared.is_some()).finish_non_exhaustive()
    }
}

/// What counts. The two are told apart here and not behind a pointer, so that counting in the process costs no boxed
/// future.
enum Limiter {
    Local(LocalLimiter),
    Shared(FallbackLimiter),
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
            Some(Limiter::Local(limiter)) => limiter.check_now(key),
            Some(Limiter::Shared(limiter)) => limiter.check(key).await,
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
