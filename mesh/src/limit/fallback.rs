//! What counts while Redis is away.

use prometheus_client::metrics::counter::Counter;

use super::{Key, LocalLimiter, Rate, RateLimiter, RedisLimiter, Verdict};
use crate::store::redis::Failure;

/// The limit in Redis; while Redis is away, a stricter one of this process.
///
/// With so many instances as Redis is there to unite, they could together let more pass than the limit allows: each lets
/// half pass.
#[derive(Debug)]
pub struct FallbackLimiter {
    shared: RedisLimiter,
    own: LocalLimiter,
    fallen_back: Counter,
}

impl FallbackLimiter {
    /// A limit of this rate. The counter counts attempts that Redis could not count.
    #[must_use]
    pub fn new(shared: RedisLimiter, rate: Rate, fallen_back: Counter) -> Self {
        Self { shared, own: LocalLimiter::new(rate.stricter()), fallen_back }
    }
}

impl RateLimiter for FallbackLimiter {
    async fn check(&self, key: Key) -> Result<Verdict, Failure> {
        self.shared.check(key).await.or_else(|failure| {
            tracing::debug!(%failure, "limit is counted in the process");
            self.fallen_back.inc();
            Ok(self.own.check_now(key))
        })
    }
}
