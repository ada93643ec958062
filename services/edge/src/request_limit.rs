//! The rate limit of requests. A request is counted before its body is read and before any call, since those are expensive.

use std::net::IpAddr;

use drystone_mesh::{
    error::Result,
    limit::{Key, Limit, LimiterFactory},
};

/// Requests of `/health` a minute from one address.
const HEALTH_PER_MINUTE: u32 = 600;

/// The rate limit of requests from one client. Requests of `/health` have a limit of their own, so that a client over its limit
/// does not appear to be a failed edge. It is counted in the process, since it must work without any store.
#[derive(Debug, Clone)]
pub struct RequestLimit {
    requests: Limit,
    health: Limit,
}

impl RequestLimit {
    /// `per_minute` requests from one address, or from one IPv6 network of 64 bits. 0 for no limit.
    #[must_use]
    pub fn new(limits: &LimiterFactory, per_minute: u32) -> Self {
        Self {
            requests: limits.limit("request_address", per_minute),
            health: limits.local("health_address", HEALTH_PER_MINUTE),
        }
    }

    /// No limit.
    #[must_use]
    pub fn none() -> Self {
        Self { requests: Limit::none(), health: Limit::none() }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time to retry after.
    pub(crate) async fn check(&self, client: IpAddr) -> Result<()> {
        self.requests.check(Key::client(client)).await
    }

    /// Counts a request of `/health`.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) async fn check_health(&self, client: IpAddr) -> Result<()> {
        self.health.check(Key::client(client)).await
    }
}
