//! Tokens of a fixed length under numbered secrets: the newest secret signs, earlier ones still verify.
//!
//! | bytes of version 1 | bytes of version 2 | content |
//! |---|---|---|
//! | 0..3 | 0..3 | the kind of token |
//! | 3 | 3 | the version |
//! | | 4..8 | the number of the secret, big-endian |
//! | 4..44 | 8..48 | the body |
//! | 44..76 | 48..80 | HMAC-SHA256 (RFC 2104) of the bytes before |
//!
//! Version 1 is that of the secret with the number 0, so that instances of the release before accept its tokens.
//!
//! On the wire: 102 or 107 characters (`mac.rs`).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use drystone_mesh::clock::Timestamp;
use zeroize::Zeroizing;

use super::mac::{SECRET_LENGTH, TokenMac};

/// The length of the body of a token in bytes.
pub const BODY_LENGTH: usize = 40;

/// How much later than the replacement of its secret something may have begun that its tokens are for: clocks differ.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(1);

/// The length of an encoded token of version 1.
const LENGTH_1: usize = 102;
/// The length of an encoded token of version 2.
const LENGTH_2: usize = 107;

/// The secrets of one kind of token.
#[derive(Debug)]
pub struct MacKeys {
    kind: [u8; 3],
    /// By number.
    keys: Vec<MacKey>,
}

#[derive(Debug)]
struct MacKey {
    number: u32,
    mac: TokenMac,
    signs_from: Timestamp,
}

/// An authentic token.
#[derive(Debug)]
pub struct Authentic {
    /// The body.
    pub body: Zeroizing<[u8; BODY_LENGTH]>,
    replaced_at: Option<Timestamp>,
}

impl Authentic {
    /// Whether the secret was the one that signs when something began that the token is for. Who has a copy of a replaced secret
    /// can forge nothing for what began later, if the token itself does not say when that was.
    #[must_use]
    pub fn is_for(&self, began_at: Timestamp) -> bool {
        self.replaced_at.is_none_or(|replaced_at| began_at < replaced_at + CLOCK_SKEW)
    }

    /// Whether the secret signs, or was replaced less than `grace` ago. For a token that says itself when it was issued, which
    /// who has a copy of a replaced secret can forge.
    #[must_use]
    pub fn is_recent(&self, grace: TimeDelta, now: Timestamp) -> bool {
        self.replaced_at.is_none_or(|replaced_at| now < replaced_at + grace)
    }
}

impl MacKeys {
    /// The secrets of a kind, in any order: number, secret, and the time from which it signs.
    #[must_use]
    pub fn new<'a>(
        kind: [u8; 3],
        secrets: impl IntoIterator<Item = (u32, &'a [u8; SECRET_LENGTH], Timestamp)>,
    ) -> Self {
        let keys = secrets.into_iter();
        let mut keys: Vec<MacKey> = keys
            .map(|(number, secret, signs_from)| MacKey { number, mac: TokenMac::new(secret), signs_from })
            .collect();
        keys.sort_unstable_by_key(|key| key.number);
        Self { kind, keys }
    }

    /// One secret, with the number 0.
    #[must_use]
    pub fn single(kind: [u8; 3], secret: &[u8; SECRET_LENGTH]) -> Self {
        Self::new(kind, [(0, secret, Timestamp::UNIX_EPOCH)])
    }

    /// A token with this body. Empty if there is no secret, which [`KeyRing`](super::key_ring::KeyRing) excludes.
    #[must_use]
    pub fn encode(&self, body: &[u8; BODY_LENGTH], now: Timestamp) -> String {
        let signing = self.keys.iter().rev().find(|key| key.signs_from <= now).or_else(|| self.keys.first());
        let Some(MacKey { number, mac, .. }) = signing else { return String::new() };
        let payload = match number {
            0 => [&self.prefix(1)[..], body].concat(),
            number => [&self.prefix(2)[..], &number.to_be_bytes(), body].concat(),
        };
        mac.encode(&Zeroizing::new(payload))
    }

    /// Decodes a token; `None` if it is malformed, of another kind, or its MAC is invalid. Compares MACs in constant time.
    #[must_use]
    pub fn decode(&self, text: &str) -> Option<Authentic> {
        match text.len() {
            LENGTH_1 => {
                let (mac, replaced_at) = self.get(0)?;
                let payload = mac.decode::<{ 4 + BODY_LENGTH }>(text)?;
                let body = payload.strip_prefix(&self.prefix(1))?;
                Authentic::new(body, replaced_at)
            }
            LENGTH_2 => {
                // The number is read before the MAC that it selects is checked.
                let mut start = [0; 9];
                BASE64_URL_SAFE_NO_PAD.decode_slice(text.get(..12)?, &mut start).ok()?;
                let number = u32::from_be_bytes(start[4..8].try_into().ok()?);
                let (mac, replaced_at) = self.get(number).filter(|_| number > 0)?;
                let payload = mac.decode::<{ 8 + BODY_LENGTH }>(text)?;
                let body = payload.strip_prefix(&self.prefix(2))?.get(4..)?;
                Authentic::new(body, replaced_at)
            }
            _ => None,
        }
    }

    fn prefix(&self, version: u8) -> [u8; 4] {
        let [a, b, c] = self.kind;
        [a, b, c, version]
    }

    /// The secret with this number, and when the next one replaced it.
    fn get(&self, number: u32) -> Option<(&TokenMac, Option<Timestamp>)> {
        let index = self.keys.iter().position(|key| key.number == number)?;
        let replaced_at = self.keys.get(index + 1).map(|next| next.signs_from);
        Some((&self.keys.get(index)?.mac, replaced_at))
    }
}

impl Authentic {
    fn new(body: &[u8], replaced_at: Option<Timestamp>) -> Option<Self> {
        let mut copy = Zeroizing::new([0; BODY_LENGTH]);
        (body.len() == BODY_LENGTH).then(|| {
            copy.copy_from_slice(body);
            Self { body: copy, replaced_at }
        })
    }
}

#[cfg(test)]
mod tests {
    use drystone_mesh::clock::Clock;

    use super::*;

    const KIND: [u8; 3] = *b"tst";

    fn keys(now: Timestamp) -> MacKeys {
        let later = now + TimeDelta::minutes(2);
        MacKeys::new(KIND, [(1, &[8; 32], later), (0, &[7; 32], Timestamp::UNIX_EPOCH)])
    }

    #[test]
    fn the_first_secret_signs_version_1_and_later_ones_name_their_number() {
        let (now, body) = (Clock::system().now(), [5; BODY_LENGTH]);
        let keys = keys(now);
        let first = keys.encode(&body, now);
        assert_eq!(first.len(), LENGTH_1);
        assert_eq!(first, MacKeys::single(KIND, &[7; 32]).encode(&body, now), "a release before issues the same token");
        let second = keys.encode(&body, now + TimeDelta::minutes(2));
        assert_eq!(second.len(), LENGTH_2);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&second).unwrap();
        assert_eq!(&bytes[..8], b"tst\x02\0\0\0\x01");
        for token in [&first, &second] {
            assert_eq!(*keys.decode(token).unwrap().body, body);
        }
        // A release before, and one whose secrets end with the first, refuse what they do not know.
        assert!(MacKeys::single(KIND, &[7; 32]).decode(&second).is_none());
    }

    #[test]
    fn a_replaced_secret_is_for_what_began_before() {
        let now = Clock::system().now();
        let keys = keys(now);
        let replaced_at = now + TimeDelta::minutes(2);
        let first = keys.decode(&keys.encode(&[5; BODY_LENGTH], now)).unwrap();
        assert!(first.is_for(now) && first.is_for(replaced_at));
        assert!(!first.is_for(replaced_at + CLOCK_SKEW));
        let second = keys.decode(&keys.encode(&[5; BODY_LENGTH], replaced_at)).unwrap();
        assert!(second.is_for(replaced_at + TimeDelta::days(90)));
    }

    #[test]
    fn a_token_of_another_secret_kind_version_or_number_is_refused() {
        let now = Clock::system().now() + TimeDelta::minutes(3);
        let keys = keys(now - TimeDelta::minutes(3));
        let token = keys.encode(&[5; BODY_LENGTH], now);
        let secrets = |first: u8, second: u8, kind: [u8; 3]| {
            MacKeys::new(kind, [(0, &[first; 32], Timestamp::UNIX_EPOCH), (1, &[second; 32], Timestamp::UNIX_EPOCH)])
        };
        assert!(secrets(7, 8, KIND).decode(&token).is_some());
        assert!(secrets(7, 9, KIND).decode(&token).is_none());
        assert!(secrets(8, 7, KIND).decode(&token).is_none(), "the number is part of what the MAC covers");
        assert!(secrets(7, 8, *b"oth").decode(&token).is_none());
        for end in 0..token.len() {
            assert!(keys.decode(&token[..end]).is_none(), "{end} characters");
        }
        for index in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            assert!(keys.decode(&String::from_utf8(changed).unwrap()).is_none(), "character {index}");
        }
        assert!(keys.decode(&"é".repeat(53)).is_none() && keys.decode(&"/".repeat(107)).is_none());
    }
}
