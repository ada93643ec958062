//! How often one client may ask. A request is counted before its body is read and before anything is called, since that
//! is what costs.

use std::net::IpAddr;

use drystone_mesh::{
    error::Result,
    limit::{Key, Limit, LimiterFactory},
};

/// How often one client may ask. Whoever watches over `/health` may ask for that as often as it likes.
#[derive(Debug, Clone)]
pub struct RequestLimit(Limit);

impl RequestLimit {
    /// So many requests a minute from one address, an IPv6 network of 64 bits being one. 0 for no limit.
    #[must_use]
    pub fn new(limits: &LimiterFactory, per_minute: u32) -> Self {
        Self(limits.limit("request_address", per_minute))
    }

    /// No limit.
    #[must_use]
    pub fn none() -> Self {
        Self(Limit::none())
    }

    /// Counts a request, whatever will come of it.
    ///
    /// # Errors
    /// `RATE_LIMITED`, which says when to come back.
    pub(crate) async fn check(&self, client: IpAddr) -> Result<()> {
        self.0.check(Key::client(client)).await
    }
}
