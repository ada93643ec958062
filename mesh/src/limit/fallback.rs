//! The limiter that applies while the shared store is unavailable.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use super::{Key, LocalLimiter, Rate, RateLimiter, Verdict};

/// A shared limit; while its store is unavailable, a stricter one of this process.
///
/// Several instances that count by themselves could together let more pass than the limit allows: each allows half.
pub struct FallbackLimiter {
    shared: Arc<dyn RateLimiter>,
    local: LocalLimiter,
    fallen_back: Counter,
}

impl FallbackLimiter {
    /// A limit of this rate. The counter counts attempts that the store could not count.
    #[must_use]
    pub fn new(shared: Arc<dyn RateLimiter>, rate: Rate, fallen_back: Counter) -> Self {
        Self { shared, local: LocalLimiter::new(rate.stricter()), fallen_back }
    }

    /// Counts an attempt, unless it is refused.
    pub async fn check(&self, key: Key) -> Verdict {
        match self.shared.check(key).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::debug!(%error, "limit is counted in the process");
                self.fallen_back.inc();
                self.local.check_now(key)
            }
        }
    }
}
