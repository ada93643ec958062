//! How often somebody may try to sign in or to register. An attempt is counted before its password is hashed, since the
//! hash is what costs.

use drystone_mesh::{
    call::Client,
    limit::{Key, Limit, Limits},
};

use crate::error::Error;

/// How often somebody may try. What a client's address counts for is left out where none is known: who calls without a
/// front door has a certificate of the mesh.
#[derive(Debug, Clone)]
pub struct AttemptLimits {
    sign_in_by_address: Limit,
    sign_in_by_account: Limit,
    registration_by_address: Limit,
}

impl AttemptLimits {
    /// So many sign-ins a minute from one address, and for one account; and so many registrations from one address. 0
    /// for no limit.
    #[must_use]
    pub fn new(limits: &Limits, sign_ins: u32, registrations: u32) -> Self {
        Self {
            sign_in_by_address: limits.limit("sign_in_address", sign_ins),
            sign_in_by_account: limits.limit("sign_in_account", sign_ins),
            registration_by_address: limits.limit("registration_address", registrations),
        }
    }

    /// No limits.
    #[must_use]
    pub fn none() -> Self {
        let none = Limit::none;
        Self { sign_in_by_address: none(), sign_in_by_account: none(), registration_by_address: none() }
    }

    /// Counts a sign-in, whatever will come of it.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn sign_in(&self, client: &Client, email: &str) -> Result<(), Error> {
        // First, so that nobody fills the count of accounts from one address, or keeps others out of theirs.
        if let Some(address) = address_key(client) {
            self.sign_in_by_address.check(address).await.map_err(Error::Limited)?;
        }
        self.sign_in_by_account.check(account_key(email)).await.map_err(Error::Limited)
    }

    /// Counts a registration, whatever will come of it.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn registration(&self, client: &Client) -> Result<(), Error> {
        match address_key(client) {
            Some(address) => self.registration_by_address.check(address).await.map_err(Error::Limited),
            None => Ok(()),
        }
    }
}

/// The client's address, where one is known.
fn address_key(client: &Client) -> Option<Key> {
    let text = client.address.as_str();
    (!text.is_empty()).then(|| text.parse().map_or_else(|_| Key::text(text), Key::client))
}

/// The account, however its owner writes its e-mail address.
fn account_key(email: &str) -> Key {
    Key::text(&email.trim().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> Option<Key> {
        address_key(&Client { address: address.to_owned(), agent: String::new() })
    }

    #[test]
    fn what_one_customer_has_counts_as_one_address_and_no_address_as_none() {
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.7"), key("192.0.2.7"));
        assert_eq!(key(""), None);
        // What an ingress of somebody's own says is no address counts all the same.
        assert_eq!(key("unknown"), key("unknown"));
        assert_ne!(key("unknown"), key("192.0.2.7"));
    }

    #[test]
    fn an_account_has_one_key() {
        assert_eq!(account_key("Ada@Example.com"), account_key(" ada@example.com "));
        assert_ne!(account_key("ada@example.com"), account_key("bob@example.com"));
    }
}
