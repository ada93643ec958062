//! Refresh tokens: `{session, user, counter}` and a MAC, so that only the session's counter has to be stored.
//!
//! | bytes of the body | content |
//! |---|---|
//! | 0..16 | the session's id |
//! | 16..32 | the user's id |
//! | 32..40 | the counter, big-endian |
//!
//! For the rest of a token see `mac_keys.rs`; its kind is `drt`. The session determines the user; the token has the user's id
//! so that a refresh can read the user's roles before it consumes the token.
//!
//! A replaced secret verifies the tokens of sessions that began before, which the session's id shows (UUIDv7).

use chrono::DateTime;
use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

use super::mac_keys::{BODY_LENGTH, MacKeys};

/// The content of a refresh token: it authorizes its bearer to rotate the session from this counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshToken {
    /// The session.
    pub session_id: Uuid,
    /// The user of the session.
    pub user_id: Uuid,
    /// The session's counter when the token was issued.
    pub counter: u64,
}

/// Encodes and authenticates refresh tokens with secret keys.
#[derive(Debug)]
pub struct RefreshTokenCodec(MacKeys);

impl RefreshTokenCodec {
    /// A codec with these secrets.
    #[must_use]
    pub fn new(keys: MacKeys) -> Self {
        Self(keys)
    }

    /// Encodes a token with its MAC.
    #[must_use]
    pub fn encode(&self, token: RefreshToken, now: Timestamp) -> String {
        let mut body = [0; BODY_LENGTH];
        body[..16].copy_from_slice(token.session_id.as_bytes());
        body[16..32].copy_from_slice(token.user_id.as_bytes());
        body[32..].copy_from_slice(&token.counter.to_be_bytes());
        self.0.encode(&body, now)
    }

    /// Decodes a token; `None` if it is malformed, its MAC is invalid, or its secret was replaced before its session began.
    /// Compares MACs in constant time.
    #[must_use]
    pub fn decode(&self, text: &str) -> Option<RefreshToken> {
        let token = self.0.decode(text)?;
        let (session_id, rest) = token.body.split_first_chunk::<16>()?;
        let (user_id, counter) = rest.split_first_chunk::<16>()?;
        let session_id = Uuid::from_bytes(*session_id);
        token.is_for(began_at(session_id)).then_some(RefreshToken {
            session_id,
            user_id: Uuid::from_bytes(*user_id),
            counter: u64::from_be_bytes(counter.try_into().ok()?),
        })
    }
}

/// When a session began, from its id. An id without a time is of no session of ours, and so of none that began before.
fn began_at(session_id: Uuid) -> Timestamp {
    let seconds = session_id.get_timestamp().map(|timestamp| timestamp.to_unix());
    let began_at = seconds.and_then(|(seconds, nanos)| DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos));
    began_at.unwrap_or(Timestamp::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    const TOKEN_LENGTH: usize = 76;
    /// The length of an encoded token.
    const ENCODED_LENGTH: usize = 102;

    fn codec() -> RefreshTokenCodec {
        of_secret(7)
    }

    fn of_secret(secret: u8) -> RefreshTokenCodec {
        RefreshTokenCodec::new(MacKeys::single(*b"drt", &[secret; 32]))
    }

    fn encode(codec: &RefreshTokenCodec, token: RefreshToken) -> String {
        codec.encode(token, Timestamp::UNIX_EPOCH)
    }

    fn token(counter: u64) -> RefreshToken {
        RefreshToken { session_id: Uuid::from_u128(0x0102), user_id: Uuid::from_u128(0x0304), counter }
    }

    fn tokens() -> impl Strategy<Value = RefreshToken> {
        (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u64>()).prop_map(|(session, user, counter)| RefreshToken {
            session_id: Uuid::from_bytes(session),
            user_id: Uuid::from_bytes(user),
            counter,
        })
    }

    #[test]
    fn a_token_has_the_documented_layout() {
        let token = token(3);
        let text = encode(&codec(), token);
        assert_eq!(text.len(), ENCODED_LENGTH);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
        assert_eq!(&bytes[..4], b"drt\x01");
        assert_eq!(&bytes[4..20], token.session_id.as_bytes());
        assert_eq!(&bytes[20..36], token.user_id.as_bytes());
        assert_eq!(&bytes[36..44], &[0, 0, 0, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn a_token_of_another_secret_is_rejected() {
        let text = encode(&of_secret(8), token(1));
        assert_eq!(codec().decode(&text), None);
    }

    #[test]
    fn a_replaced_secret_verifies_the_tokens_of_earlier_sessions_only() {
        let replaced_at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let secrets = [(0, &[7; 32], Timestamp::UNIX_EPOCH), (1, &[8; 32], replaced_at)];
        let codec = RefreshTokenCodec::new(MacKeys::new(*b"drt", secrets));
        let session = |offset: i64| {
            let seconds = u64::try_from(replaced_at.timestamp() + offset).unwrap();
            let time = uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0);
            RefreshToken { session_id: Uuid::new_v7(time), ..token(1) }
        };
        // Who has the replaced secret signs with it.
        let forged = |offset| encode(&of_secret(7), session(offset));
        assert_eq!(codec.decode(&forged(-1)).unwrap().counter, 1);
        assert_eq!(codec.decode(&forged(120)), None);
        let later = session(120);
        assert_eq!(codec.decode(&codec.encode(later, replaced_at)), Some(later));
        // A session's id that shows no time.
        assert_eq!(codec.decode(&encode(&of_secret(7), token(1))), None);
    }

    #[test]
    fn padding_whitespace_and_the_standard_alphabet_are_rejected() {
        let text =
            (0..1000).map(|counter| encode(&codec(), token(counter))).find(|text| text.contains(['-', '_'])).unwrap();
        let others = [
            format!("{text}="),
            format!("{text}===="),
            format!(" {text}"),
            format!("{text}\n"),
            text.replace('-', "+").replace('_', "/"),
            String::new(),
        ];
        for other in others {
            assert_eq!(codec().decode(&other), None, "{other:?}");
        }
        assert!(codec().decode(&text).is_some());
    }

    proptest! {
        #[test]
        fn a_token_round_trips(token in tokens()) {
            prop_assert_eq!(codec().decode(&encode(&codec(), token)), Some(token));
        }

        #[test]
        fn a_token_with_any_bit_changed_is_rejected(token in tokens(), byte in 0..TOKEN_LENGTH, bit in 0..8) {
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(encode(&codec(), token)).unwrap();
            bytes[byte] ^= 1_u8 << bit;
            prop_assert_eq!(codec().decode(&BASE64_URL_SAFE_NO_PAD.encode(bytes)), None);
        }

        #[test]
        fn a_token_with_any_character_changed_is_rejected(
            token in tokens(),
            index in 0..ENCODED_LENGTH,
            other in "[ -~]",
        ) {
            let mut text = encode(&codec(), token);
            prop_assume!(text[index..=index] != other);
            text.replace_range(index..=index, &other);
            prop_assert_eq!(codec().decode(&text), None);
        }

        #[test]
        fn a_truncated_or_extended_token_is_rejected(
            token in tokens(),
            length in 0..ENCODED_LENGTH,
            more in "[A-Za-z0-9_-]{1,8}",
        ) {
            let text = encode(&codec(), token);
            prop_assert_eq!(codec().decode(&text[..length]), None);
            prop_assert_eq!(codec().decode(&format!("{text}{more}")), None);
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in ".{0,200}") {
            prop_assert_eq!(codec().decode(&text), None);
        }
    }
}
