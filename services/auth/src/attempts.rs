//! Rate limit of sign-ins per account. An attempt is counted before its password is hashed, since hashing is the
//! expensive step. The server counts attempts by client address, as the contract of each RPC specifies.

use drystone_mesh::{
    email::Email,
    limit::{Key, Limit, LimiterFactory},
};

use crate::error::Error;

/// Rate limits of this service.
#[derive(Debug, Clone)]
pub struct AttemptLimits {
    sign_in_by_account: Limit,
}

impl AttemptLimits {
    /// Allows `sign_ins` per minute for one account; 0 means no limit.
    #[must_use]
    pub fn new(limits: &LimiterFactory, sign_ins: u32) -> Self {
        Self { sign_in_by_account: limits.limit("sign_in_account", sign_ins) }
    }

    /// No limits.
    #[must_use]
    pub fn none() -> Self {
        Self { sign_in_by_account: Limit::none() }
    }

    /// Counts a sign-in attempt for an email address, whether it will succeed or not.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn sign_in(&self, email: &str) -> Result<(), Error> {
        self.sign_in_by_account.check(account_key(email)).await.map_err(Error::Limited)
    }
}

/// One key per account, for all spellings of its email address. A string that is not an email address has a key that
/// no address has.
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
    fn all_spellings_of_an_email_address_have_one_key() {
        for spelling in ["Ada@Example.com", " ada@example.com ", "ADA@EXAMPLE.COM\t", "\u{3000}ada@Example.com\n"] {
            assert_eq!(account_key(spelling), account_key("ada@example.com"), "{}", spelling.escape_unicode());
        }
        assert_ne!(account_key("ada@example.com"), account_key("bob@example.com"));
    }

    #[test]
    fn an_invalid_email_address_has_its_own_key() {
        assert_eq!(account_key("ada"), account_key("ada"));
        assert_ne!(account_key("ada"), account_key("bob"));
        // The Kelvin sign: not an address, although its lower case is one.
        assert_ne!(account_key("\u{212a}ate@example.com"), account_key("kate@example.com"));
    }
}
