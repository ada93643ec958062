//! The rate limit of requests. A request is counted before its body is read and before any call, since those are expensive.

use std::net::IpAddr;

use drystone_mesh::{
    error::Result,
    limit::{Key, Limit, LimiterFactory},
};

/// The rate limit of requests from one client. Requests of `/health` are not limited.
#[derive(Debug, Clone)]
pub struct RequestLimit(Limit);

impl RequestLimit {
    /// `per_minute` requests from one address, or from one IPv6 network of 64 bits. 0 for no limit.
    #[must_use]
    pub fn new(limits: &LimiterFactory, per_minute: u32) -> Self {
        Self(limits.limit("request_address", per_minute))
    }

    /// No limit.
    #[must_use]
    pub fn none() -> Self {
        Self(Limit::none())
    }

    /// Counts a request.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time to retry after.
    pub(crate) async fn check(&self, client: IpAddr) -> Result<()> {
        self.0.check(Key::client(client)).await
    }
}
