//! The limits named in contracts: an RPC with a `limit` in its policy counts against that limit, by the address of the
//! external client.

use std::{collections::BTreeMap, sync::Arc};

use super::{Key, Limit, LimiterFactory};
use crate::{call::Client, error::Result};

/// The limits by their names in the contracts. Clones share their counts.
#[derive(Debug, Clone, Default)]
pub struct ClassLimits(Arc<BTreeMap<String, Limit>>);

impl ClassLimits {
    /// Creates a limit for each name, in calls per minute from one address; 0 for no limit.
    #[must_use]
    pub fn new<'a>(factory: &LimiterFactory, per_minute: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let limit = |(name, calls): (&str, u32)| (name.to_owned(), factory.limit(&format!("{name}_address"), calls));
        Self(Arc::new(per_minute.into_iter().map(limit).collect()))
    }

    /// The limit of this name; unlimited if it is not configured, which the process rejects at startup.
    #[must_use]
    pub fn of(&self, name: &str) -> Limit {
        self.0.get(name).cloned().unwrap_or_else(Limit::none)
    }
}

/// Counts a call against its client's address. A caller without one has a certificate of the mesh, and is not limited.
///
/// # Errors
/// `RATE_LIMITED` with a retry delay.
pub async fn check_client(limit: &Limit, client: &Client) -> Result<()> {
    match client_key(client) {
        Some(key) => limit.check(key).await,
        None => Ok(()),
    }
}

/// The key of the client's address, if it is known.
#[must_use]
pub fn client_key(client: &Client) -> Option<Key> {
    let address = client.address.as_str();
    (!address.is_empty()).then(|| address.parse().map_or_else(|_| Key::text(address), Key::client))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn key(address: &str) -> Option<Key> {
        client_key(&Client { address: address.to_owned(), agent: String::new() })
    }

    #[test]
    fn an_ipv6_prefix_counts_as_one_address_and_no_address_is_not_counted() {
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.7"), key("192.0.2.7"));
        assert_eq!(key(""), None);
        // An identifier that is not an IP address is counted too.
        assert_eq!(key("unknown"), key("unknown"));
        assert_ne!(key("unknown"), key("192.0.2.7"));
    }

    #[tokio::test]
    async fn a_call_counts_against_the_limit_of_its_name() {
        let factory = LimiterFactory::in_process(&Metrics::default());
        let limits = ClassLimits::new(&factory, [("sign_in", 1), ("registration", 0)]);
        let client = Client { address: "192.0.2.7".to_owned(), agent: String::new() };
        check_client(&limits.of("sign_in"), &client).await.unwrap();
        assert!(check_client(&limits.of("sign_in"), &client).await.is_err());
        check_client(&limits.of("sign_in"), &Client::default()).await.unwrap();
        for _ in 0..3 {
            check_client(&limits.of("registration"), &client).await.unwrap();
        }
    }
}
