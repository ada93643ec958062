//! Device tokens: proof that a device has signed in to an account before.
//!
//! A device token grants no access. Its bearer's sign-ins have an allowance of their own, which the guesses of strangers cannot
//! use up, and are hashed before those of strangers. It is bound to one e-mail address.
//!
//! | bytes of the body | content |
//! |---|---|
//! | 0..16 | the first half of the SHA-256 of the e-mail address in its normal form |
//! | 16..32 | the device, a UUID |
//! | 32..35 | the first bytes of the SHA-256 of the user id; zero in tokens of the release before |
//! | 35..40 | when it was issued, in seconds since 1970, big-endian |
//!
//! For the rest of a token see `mac_keys.rs`; its kind is `ddt`. A replaced secret verifies tokens for [`GRACE`]:
//! who has a copy of it can forge the time of issue.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, TimeDelta};
use drystone_mesh::{clock::Timestamp, email::Email};
use uuid::Uuid;

use super::mac_keys::{BODY_LENGTH, MacKeys};

/// How long a token is valid: each sign-in issues a new one.
const LIFETIME: TimeDelta = TimeDelta::days(180);

/// How long a replaced secret verifies tokens. A device that does not sign in meanwhile is a new one.
const GRACE: TimeDelta = TimeDelta::days(7);

/// Encodes and authenticates device tokens with a secret key.
#[derive(Debug)]
pub struct DeviceTokenCodec(MacKeys);

impl DeviceTokenCodec {
    /// A codec with these secrets.
    #[must_use]
    pub fn new(keys: MacKeys) -> Self {
        Self(keys)
    }

    /// A token of this device, which has signed in to the account of this user with this address.
    #[must_use]
    pub fn encode(&self, email: &Email, user_id: Uuid, device: Uuid, now: Timestamp) -> String {
        let mut body = [0; BODY_LENGTH];
        body[..16].copy_from_slice(&account(email));
        body[16..32].copy_from_slice(device.as_bytes());
        body[32..].copy_from_slice(&now.timestamp().to_be_bytes());
        body[32..35].copy_from_slice(&tag(user_id));
        self.0.encode(&body, now)
    }

    /// The device of a token for this address; `None` if it is malformed, expired, forged, or for another address.
    #[must_use]
    pub fn decode(&self, text: &str, email: &Email, now: Timestamp) -> Option<KnownDevice> {
        let token = self.0.decode(text)?;
        let (of, rest) = token.body.split_first_chunk::<16>()?;
        let (device, rest) = rest.split_first_chunk::<16>()?;
        let (user_tag, _) = rest.split_first_chunk::<3>()?;
        let mut seconds: [u8; 8] = rest.try_into().ok()?;
        seconds[..3].fill(0);
        let issued_at = DateTime::from_timestamp(i64::from_be_bytes(seconds), 0)?;
        let is_valid = *of == account(email) && now < issued_at + LIFETIME && token.is_recent(GRACE, now);
        is_valid.then(|| KnownDevice { id: Uuid::from_bytes(*device), user_tag: *user_tag, issued_at })
    }
}

/// A device that has signed in before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownDevice {
    /// Its id.
    pub id: Uuid,
    user_tag: [u8; 3],
    /// When its token was issued.
    pub issued_at: Timestamp,
}

impl KnownDevice {
    /// Whether it has signed in to the account of this user: an address can be that of another account by now.
    #[must_use]
    pub fn is_of(&self, user_id: Uuid) -> bool {
        self.user_tag == [0; 3] || self.user_tag == tag(user_id)
    }
}

fn tag(user_id: Uuid) -> [u8; 3] {
    let mut tag = [0; 3];
    tag.copy_from_slice(&digest(&SHA256, user_id.as_bytes()).as_ref()[..3]);
    tag
}

fn account(email: &Email) -> [u8; 16] {
    let mut account = [0; 16];
    account.copy_from_slice(&digest(&SHA256, email.key().as_bytes()).as_ref()[..16]);
    account
}

#[cfg(test)]
mod tests {
    use drystone_mesh::clock::Clock;

    use super::*;

    const USER: Uuid = Uuid::from_u128(1);

    fn of_secret(secret: u8) -> DeviceTokenCodec {
        DeviceTokenCodec::new(MacKeys::single(*b"ddt", &[secret; 32]))
    }

    fn email(text: &str) -> Email {
        Email::parse(text).unwrap()
    }

    #[test]
    fn a_token_is_valid_for_its_address_in_every_spelling() {
        let (codec, device, now) = (of_secret(7), Uuid::now_v7(), Clock::system().now());
        let token = codec.encode(&email("ada@example.com"), USER, device, now);
        assert_eq!(token.len(), 102);
        let known = codec.decode(&token, &email("Ada@Example.com"), now).unwrap();
        assert_eq!((known.id, known.issued_at.timestamp()), (device, now.timestamp()));
        assert!(known.is_of(USER) && !known.is_of(Uuid::from_u128(2)));
        assert_eq!(codec.decode(&token, &email("bob@example.com"), now), None);
        assert_eq!(of_secret(8).decode(&token, &email("ada@example.com"), now), None);
        assert_eq!(codec.decode(&token[1..], &email("ada@example.com"), now), None);
        assert_eq!(codec.decode("", &email("ada@example.com"), now), None);
    }

    #[test]
    fn a_replaced_secret_verifies_tokens_for_a_week_whatever_their_time() {
        let (device, replaced_at) = (Uuid::now_v7(), Clock::system().now());
        let codec = DeviceTokenCodec::new(MacKeys::new(
            *b"ddt",
            [(0, &[7; 32], Timestamp::UNIX_EPOCH), (1, &[8; 32], replaced_at)],
        ));
        // Who has the replaced secret writes any time into the token.
        for issued_at in [replaced_at - TimeDelta::days(1), replaced_at + TimeDelta::days(6)] {
            let token = of_secret(7).encode(&email("ada@example.com"), USER, device, issued_at);
            let valid = |now: Timestamp| codec.decode(&token, &email("ada@example.com"), now).is_some();
            assert!(valid(replaced_at + TimeDelta::days(6)) && !valid(replaced_at + GRACE), "{issued_at}");
        }
        let token = codec.encode(&email("ada@example.com"), USER, device, replaced_at);
        assert!(codec.decode(&token, &email("ada@example.com"), replaced_at + TimeDelta::days(100)).is_some());
    }

    #[test]
    fn a_token_expires() {
        let (codec, device, now) = (of_secret(7), Uuid::now_v7(), Clock::system().now());
        let token = codec.encode(&email("ada@example.com"), USER, device, now);
        let valid = |later: TimeDelta| codec.decode(&token, &email("ada@example.com"), now + later).is_some();
        assert!(valid(LIFETIME - TimeDelta::seconds(1)) && !valid(LIFETIME));
    }
}
