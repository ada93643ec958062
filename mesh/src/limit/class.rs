//! The limits named in contracts: an RPC with a `limit` in its policy counts against that limit, by the user if its rule
//! requires one, otherwise by the address of the external client.

use std::{collections::BTreeMap, sync::Arc};

use drystone::contract::{Method, Subject};

use super::{Key, Limit, LimiterFactory};
use crate::{
    call::{CallFields, Client},
    error::Result,
    module::StartError,
};

/// The limits by their names in the contracts. Clones share their counts.
#[derive(Debug, Clone, Default)]
pub struct ClassLimits(Arc<LimitsByKey>);

#[derive(Debug, Default)]
struct LimitsByKey {
    by_address: BTreeMap<String, Limit>,
    by_user: BTreeMap<String, Limit>,
}

impl ClassLimits {
    /// Creates the limits that these RPCs name, with `per_minute` calls of each; 0 for no limit.
    ///
    /// Calls without a user are counted by the factory that `shared` returns. Calls of users are counted in the process: a
    /// user is known, and asking a store would cost as much as many of the limited calls.
    ///
    /// # Errors
    /// A limit is not configured, or the store is misconfigured.
    pub fn new<'a>(
        methods: impl IntoIterator<Item = &'a Method>,
        per_minute: &BTreeMap<String, u32>,
        in_process: &LimiterFactory,
        shared: impl Fn() -> Result<LimiterFactory, StartError>,
    ) -> Result<Self, StartError> {
        let mut by_key = LimitsByKey::default();
        for method in methods {
            let Some(name) = method.policy.limit.as_deref() else { continue };
            let calls = *per_minute.get(name).ok_or_else(|| {
                format!("the contract of `{}` counts calls for the limit `{name}`, which is not set; add it under [limits.calls_per_minute]", method.workload)
            })?;
            match method.subject {
                Subject::None if !by_key.by_address.contains_key(name) => {
                    let limit = shared()?.limit(&format!("{name}_address"), calls);
                    by_key.by_address.insert(name.to_owned(), limit);
                }
                Subject::User | Subject::UserOrOperator if !by_key.by_user.contains_key(name) => {
                    let limit = in_process.limit(&format!("{name}_user"), calls);
                    by_key.by_user.insert(name.to_owned(), limit);
                }
                Subject::None | Subject::User | Subject::UserOrOperator => {}
            }
        }
        Ok(Self(Arc::new(by_key)))
    }

    /// The limit of this RPC, if it has one.
    #[must_use]
    pub fn of(&self, method: &Method) -> Option<Limit> {
        let limits = match method.subject {
            Subject::None => &self.0.by_address,
            Subject::User | Subject::UserOrOperator => &self.0.by_user,
        };
        limits.get(method.policy.limit.as_deref()?).cloned()
    }
}

/// Counts a call against its user, or against its client's address. A caller without either has a certificate of the mesh,
/// and is not limited.
///
/// # Errors
/// `RATE_LIMITED` with a retry delay.
pub async fn check_call(limit: &Limit, call: &CallFields) -> Result<()> {
    let user = call.principal.as_ref().map(|principal| Key::user(principal.user_id));
    match user.or_else(|| client_key(&call.client)) {
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
}
