//! How often somebody may try to sign in to one account. An attempt is counted before its password is hashed, since the
//! hash is what costs. Attempts by address are counted by the server, as the contract of each RPC says.

use drystone_mesh::{
    email::Email,
    limit::{Key, Limit, LimiterFactory},
};

use crate::error::Error;

/// How often somebody may try.
#[derive(Debug, Clone)]
pub struct AttemptLimits {
    sign_in_by_account: Limit,
}

impl AttemptLimits {
    /// So many sign-ins a minute for one account; 0 for no limit.
    #[must_use]
    pub fn new(limits: &LimiterFactory, sign_ins: u32) -> Self {
        Self { sign_in_by_account: limits.limit("sign_in_account", sign_ins) }
    }

    /// No limits.
    #[must_use]
    pub fn none() -> Self {
        Self { sign_in_by_account: Limit::none() }
    }

    /// Counts a sign-in to the account that this text names, whatever the outcome will be.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn sign_in(&self, email: &str) -> Result<(), Error> {
        self.sign_in_by_account.check(account_key(email)).await.map_err(Error::Limited)
    }
}

/// The account, however its owner writes its email address. A text that is not an address names no account; it is
/// counted by itself, and equals the key of no address.
fn account_key(text: &str) -> Key {
    match Email::parse(text) {
        Ok(email) => Key::text(&email.key()),
        Err(_) => Key::text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_one_key() {
        for spelling in ["Ada@Example.com", " ada@example.com ", "ADA@EXAMPLE.COM\t", "\u{3000}ada@Example.com\n"] {
            assert_eq!(account_key(spelling), account_key("ada@example.com"), "{}", spelling.escape_unicode());
        }
        assert_ne!(account_key("ada@example.com"), account_key("bob@example.com"));
    }

    #[test]
    fn a_text_that_is_not_an_address_has_a_key_of_its_own() {
        assert_eq!(account_key("ada"), account_key("ada"));
        assert_ne!(account_key("ada"), account_key("bob"));
        // Not an address, although its lower case is one: the Kelvin sign.
        assert_ne!(account_key("\u{212a}ate@example.com"), account_key("kate@example.com"));
    }
}
