//! Link tokens: what a link in a mail has, such as the one to choose a new password.
//!
//! | bytes of the body | content |
//! |---|---|
//! | 0..16 | the link's id |
//! | 16 | what it is for: [`Purpose::number`] |
//! | 17..40 | zero |
//!
//! For the rest of a token see `mac_keys.rs`; its kind is `dlt`. The database has the id of a link, its user, and whether it was
//! used, but nothing to make the token of: a copied database opens no account.

use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

use super::mac_keys::{Authentic, BODY_LENGTH, MacKeys};

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Choosing a new password.
    PasswordReset,
    /// Verifying the address of an account.
    EmailVerification,
    /// Verifying another address, which the account then gets.
    EmailChange,
    /// Getting back the address from before a change.
    EmailUndo,
    /// Reporting a sign-in of somebody else.
    SignInReport,
    /// Telling that an address has an account already. Its mail has no token.
    AddressTaken,
    /// Telling that two clients seem to share a session. Its mail has no link.
    SessionShared,
}

impl Purpose {
    /// The name, as it is stored.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PasswordReset => "password_reset",
            Self::EmailVerification => "email_verification",
            Self::EmailChange => "email_change",
            Self::EmailUndo => "email_undo",
            Self::SignInReport => "sign_in_report",
            Self::AddressTaken => "address_taken",
            Self::SessionShared => "session_shared",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::PasswordReset => 1,
            Self::EmailVerification => 2,
            Self::EmailChange => 3,
            Self::EmailUndo => 4,
            Self::SignInReport => 5,
            Self::AddressTaken => 6,
            Self::SessionShared => 7,
        }
    }
}

/// An authentic token of a link.
#[derive(Debug)]
pub struct LinkToken {
    /// The link.
    pub id: Uuid,
    /// What it is for.
    pub purpose: Purpose,
    token: Authentic,
}

impl LinkToken {
    /// Whether the secret was the one that signs when the link was made.
    #[must_use]
    pub fn is_for(&self, created_at: Timestamp) -> bool {
        self.token.is_for(created_at)
    }
}

/// Encodes and authenticates the tokens of links with secret keys.
#[derive(Debug)]
pub struct LinkTokenCodec(MacKeys);

impl LinkTokenCodec {
    /// A codec with these secrets.
    #[must_use]
    pub fn new(keys: MacKeys) -> Self {
        Self(keys)
    }

    /// The token of a link.
    #[must_use]
    pub fn encode(&self, id: Uuid, purpose: Purpose, now: Timestamp) -> String {
        let mut body = [0; BODY_LENGTH];
        body[..16].copy_from_slice(id.as_bytes());
        body[16] = purpose.number();
        self.0.encode(&body, now)
    }

    /// Decodes a token; `None` if it is malformed, its MAC is invalid, or it is for something else. Compares MACs in constant time.
    #[must_use]
    pub fn decode(&self, text: &str, purpose: Purpose) -> Option<LinkToken> {
        let token = self.0.decode(text)?;
        let (id, rest) = token.body.split_first_chunk::<16>()?;
        let id = Uuid::from_bytes(*id);
        let is_valid = rest
            .split_first()
            .is_some_and(|(number, zeros)| *number == purpose.number() && zeros.iter().all(|byte| *byte == 0));
        is_valid.then_some(LinkToken { id, purpose, token })
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use drystone_mesh::clock::Clock;

    use super::*;

    fn of_secret(secret: u8) -> LinkTokenCodec {
        LinkTokenCodec::new(MacKeys::single(*b"dlt", &[secret; 32]))
    }

    #[test]
    fn a_token_is_that_of_its_link_and_secret() {
        let (id, now) = (Uuid::now_v7(), Clock::system().now());
        let text = of_secret(1).encode(id, Purpose::PasswordReset, now);
        assert_eq!(text, of_secret(1).encode(id, Purpose::PasswordReset, now), "the same each time it is made");
        assert_eq!(of_secret(1).decode(&text, Purpose::PasswordReset).unwrap().id, id);
        assert!(of_secret(2).decode(&text, Purpose::PasswordReset).is_none());
        for position in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(of_secret(1).decode(&changed, Purpose::PasswordReset).is_none(), "{position}");
        }
        assert!(of_secret(1).decode("", Purpose::PasswordReset).is_none());
    }

    #[test]
    fn a_replaced_secret_is_for_earlier_links_alone() {
        let (id, now) = (Uuid::now_v7(), Clock::system().now());
        let replaced = now - TimeDelta::hours(1);
        let codec =
            LinkTokenCodec::new(MacKeys::new(*b"dlt", [(0, &[1; 32], Timestamp::UNIX_EPOCH), (1, &[2; 32], replaced)]));
        let old = of_secret(1).encode(id, Purpose::PasswordReset, now);
        let token = codec.decode(&old, Purpose::PasswordReset).unwrap();
        assert!(token.is_for(replaced - TimeDelta::hours(1)) && !token.is_for(now));
    }
}
