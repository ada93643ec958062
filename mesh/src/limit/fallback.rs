//! Falls back to a local limiter while the shared store is unavailable.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use super::{CountedBy, Decision, Key, LocalLimiter, Rate, RateLimiter};

/// A shared limiter with a stricter local fallback for when its store is unavailable.
///
/// Instances that count locally could together exceed the limit, so each allows half.
pub struct FallbackLimiter {
    shared: Arc<dyn RateLimiter>,
    local: LocalLimiter,
    fallbacks: Counter,
}

impl FallbackLimiter {
    /// A limiter of this rate. `fallbacks` counts the attempts that the store could not count.
    #[must_use]
    pub fn new(shared: Arc<dyn RateLimiter>, rate: Rate, fallbacks: Counter) -> Self {
        Self { shared, local: LocalLimiter::new(rate.halved()), fallbacks }
    }

    /// Counts an attempt, unless it is denied.
    pub async fn check(&self, key: Key) -> (Decision, CountedBy) {
        match self.shared.check(key).await {
            Ok(decision) => (decision, CountedBy::Store),
            Err(error) => {
                tracing::debug!(%error, "limit store unavailable, counting locally");
                self.fallbacks.inc();
                (self.local.check_now(key), CountedBy::Local)
            }
        }
    }

    /// Takes back an attempt, where it was counted.
    pub async fn refund(&self, key: Key, counted_by: CountedBy) {
        match counted_by {
            CountedBy::Local => self.local.refund_now(key),
            CountedBy::Store => {
                if let Err(error) = self.shared.refund(key).await {
                    tracing::debug!(%error, "limit store unavailable, an attempt stays counted");
                }
            }
        }
    }
}
