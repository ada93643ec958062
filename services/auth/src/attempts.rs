//! Rate limits of sign-ins, registrations that are repeated, and refreshes. An attempt is counted before its password is
//! hashed, since hashing is the expensive step.
//!
//! A device that has signed in before proves it with a device token, and has an allowance of its own: the guesses of strangers
//! cannot lock it out. Any other device counts against its address, and against the account. The account's attempt is
//! refunded if the password was right, so that only failures add up; the successes of one never clear the failures of others.
//! The address's attempt stays counted, since each sign-in costs a hash.

use drystone_mesh::{
    call::Client,
    email::Email,
    limit::{Key, Limit, LimiterFactory, Reservation, client_key},
};
use uuid::Uuid;

use crate::error::Error;

/// How many devices' worth of sign-ins all known devices of one account have together.
const KNOWN_DEVICES: u32 = 3;

/// How many devices' worth of sign-ins the known devices at one address have together: many people can share an address, and
/// one can have many accounts.
const KNOWN_DEVICES_OF_ADDRESS: u32 = 6;

/// Rate limits of this service.
#[derive(Debug, Clone)]
pub struct AttemptLimits {
    sign_in_by_address: Limit,
    sign_in_by_account: Limit,
    sign_in_by_device: Limit,
    sign_in_by_known_devices: Limit,
    known_devices_by_address: Limit,
    refresh_by_session: Limit,
}

impl AttemptLimits {
    /// Allows `sign_ins` per minute from one address, for one account and from one known device, and `refreshes` per minute
    /// of one session; 0 means no limit.
    #[must_use]
    pub fn new(limits: &LimiterFactory, sign_ins: u32, refreshes: u32) -> Self {
        Self {
            sign_in_by_address: limits.limit("sign_in_address", sign_ins),
            sign_in_by_account: limits.limit("sign_in_account", sign_ins),
            sign_in_by_device: limits.limit("sign_in_device", sign_ins),
            sign_in_by_known_devices: limits.limit("sign_in_known_devices", sign_ins.saturating_mul(KNOWN_DEVICES)),
            known_devices_by_address: limits
                .limit("known_devices_address", sign_ins.saturating_mul(KNOWN_DEVICES_OF_ADDRESS)),
            refresh_by_session: limits.limit("refresh_session", refreshes),
        }
    }

    /// No limits.
    #[must_use]
    pub fn none() -> Self {
        Self {
            sign_in_by_address: Limit::none(),
            sign_in_by_account: Limit::none(),
            sign_in_by_device: Limit::none(),
            sign_in_by_known_devices: Limit::none(),
            known_devices_by_address: Limit::none(),
            refresh_by_session: Limit::none(),
        }
    }

    /// Counts a sign-in of this client, for an account that `device` has signed in to before, if it is given.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn sign_in(&self, client: &Client, email: &str, device: Option<Uuid>) -> Result<Attempt, Error> {
        if let Some(device) = device {
            self.sign_in_by_device.check(id_key(device)).await.map_err(Error::Limited)?;
            if let Some(address) = client_key(client) {
                self.known_devices_by_address.check(address).await.map_err(Error::Limited)?;
            }
            self.sign_in_by_known_devices.check(account_key(email)).await.map_err(Error::Limited)?;
            return Ok(Attempt(None));
        }
        if let Some(address) = client_key(client) {
            self.sign_in_by_address.check(address).await.map_err(Error::Limited)?;
        }
        self.reserve(account_key(email)).await
    }

    /// Counts a check of the password of this account by a repeated registration. The request may name any email address, so
    /// that the account itself is the key.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn repeated_registration(&self, user_id: Uuid) -> Result<Attempt, Error> {
        self.reserve(id_key(user_id)).await
    }

    /// Counts a check of the current password by a signed-in user, whose token may be stolen.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn password_check(&self, user_id: Uuid) -> Result<Attempt, Error> {
        self.reserve(id_key(user_id)).await
    }

    /// Counts a sign-in by a passkey that was verified.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn passkey(&self, factor_id: Uuid) -> Result<(), Error> {
        self.sign_in_by_device.check(id_key(factor_id)).await.map_err(Error::Limited)
    }

    async fn reserve(&self, account: Key) -> Result<Attempt, Error> {
        let reservation = self.sign_in_by_account.reserve(account).await.map_err(Error::Limited)?;
        Ok(Attempt(Some(reservation)))
    }

    /// Counts a refresh of this session.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub async fn refresh(&self, session_id: Uuid) -> Result<(), Error> {
        self.refresh_by_session.check(id_key(session_id)).await.map_err(Error::Limited)
    }
}

/// A counted attempt. It stays counted unless it [succeeds](Attempt::succeeded).
#[derive(Debug)]
pub struct Attempt(Option<Reservation>);

impl Attempt {
    /// The password was right: the account gets this attempt back.
    pub async fn succeeded(self) {
        if let Some(reservation) = self.0 {
            reservation.refund().await;
        }
    }
}

fn id_key(id: Uuid) -> Key {
    Key::text(&id.to_string())
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
