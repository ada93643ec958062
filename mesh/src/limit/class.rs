//! The limits that contracts name: each RPC with a `limit` in its policy counts for one of these, by the address of the
//! client outside.

use std::{collections::BTreeMap, sync::Arc};

use super::{Key, Limit, Limits};
use crate::{call::Client, error::Result};

/// The limits by their names in the contracts. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct ClassLimits(Arc<BTreeMap<String, Limit>>);

impl ClassLimits {
    /// So many calls a minute from one address for each of these names; 0 for no limit.
    #[must_use]
    pub fn new<'a>(limits: &Limits, per_minute: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let limit = |(name, calls): (&str, u32)| (name.to_owned(), limits.limit(&format!("{name}_address"), calls));
        Self(Arc::new(per_minute.into_iter().map(limit).collect()))
    }

    /// The limit of this name; none where nobody has set one, which is an error at the start of the process.
    #[must_use]
    pub fn of(&self, name: &str) -> Limit {
        self.0.get(name).cloned().unwrap_or_else(Limit::none)
    }
}

/// Counts a call for its client's address. A caller without one has a certificate of the mesh, and is not counted.
///
/// # Errors
/// `RATE_LIMITED`, which says when to come back.
pub async fn check_client(limit: &Limit, client: &Client) -> Result<()> {
    match client_key(client) {
        Some(key) => limit.check(key).await,
        None => Ok(()),
    }
}

/// The client's address, where one is known.
fn client_key(client: &Client) -> Option<Key> {
    let text = client.address.as_str();
    (!text.is_empty()).then(|| text.parse().map_or_else(|_| Key::text(text), Key::client))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn key(address: &str) -> Option<Key> {
        client_key(&Client { address: address.to_owned(), agent: String::new() })
    }

    #[test]
    fn what_one_customer_has_counts_as_one_address_and_no_address_as_none() {
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.7"), key("192.0.2.7"));
        assert_eq!(key(""), None);
        // A client that an ingress names by something else than an address counts all the same.
        assert_eq!(key("unknown"), key("unknown"));
        assert_ne!(key("unknown"), key("192.0.2.7"));
    }

    #[tokio::test]
    async fn a_call_counts_for_the_limit_of_its_name() {
        let limits = Limits::in_process(&Metrics::default());
        let some = ClassLimits::new(&limits, [("sign_in", 1), ("registration", 0)]);
        let client = Client { address: "192.0.2.7".to_owned(), agent: String::new() };
        check_client(&some.of("sign_in"), &client).await.unwrap();
        assert!(check_client(&some.of("sign_in"), &client).await.is_err());
        check_client(&some.of("sign_in"), &Client::default()).await.unwrap();
        for _ in 0..3 {
            check_client(&some.of("registration"), &client).await.unwrap();
        }
    }
}
