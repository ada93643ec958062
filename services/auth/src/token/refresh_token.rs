//! Refresh tokens: `{session, user, counter}` and a MAC, so that only the session's counter has to be stored.
//!
//! | bytes | content |
//! |---|---|
//! | 0..3 | `drt` |
//! | 3 | the version, 1 |
//! | 4..20 | the session's id |
//! | 20..36 | the user's id |
//! | 36..44 | the counter, big-endian |
//! | 44..76 | HMAC-SHA256 (RFC 2104) of bytes 0..44 |
//!
//! The session determines the user; the token has the user's id so that a refresh can read the user's roles before it
//! consumes the token.
//!
//! On the wire: 102 characters (`mac.rs`).

use uuid::Uuid;

use super::mac::{SECRET_LENGTH, TokenMac};

const PREFIX: [u8; 4] = *b"drt\x01";
const PAYLOAD_LENGTH: usize = 44;

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

/// Encodes and authenticates refresh tokens with a secret key.
#[derive(Debug)]
pub struct RefreshTokenCodec(TokenMac);

impl RefreshTokenCodec {
    /// A codec with this HMAC key.
    #[must_use]
    pub fn new(secret: &[u8; SECRET_LENGTH]) -> Self {
        Self(TokenMac::new(secret))
    }

    /// Encodes a token with its MAC.
    #[must_use]
    pub fn encode(&self, token: RefreshToken) -> String {
        self.0.encode(&payload(token))
    }

    /// Decodes a token; `None` if it is malformed or its MAC is invalid. Compares MACs in constant time.
    #[must_use]
    pub fn decode(&self, text: &str) -> Option<RefreshToken> {
        let payload = self.0.decode::<PAYLOAD_LENGTH>(text)?;
        let (prefix, rest) = payload.split_first_chunk::<4>()?;
        let (session_id, rest) = rest.split_first_chunk::<16>()?;
        let (user_id, counter) = rest.split_first_chunk::<16>()?;
        (*prefix == PREFIX).then_some(RefreshToken {
            session_id: Uuid::from_bytes(*session_id),
            user_id: Uuid::from_bytes(*user_id),
            counter: u64::from_be_bytes(counter.try_into().ok()?),
        })
    }
}

fn payload(token: RefreshToken) -> [u8; PAYLOAD_LENGTH] {
    let mut payload = [0; PAYLOAD_LENGTH];
    payload[..4].copy_from_slice(&PREFIX);
    payload[4..20].copy_from_slice(token.session_id.as_bytes());
    payload[20..36].copy_from_slice(token.user_id.as_bytes());
    payload[36..].copy_from_slice(&token.counter.to_be_bytes());
    payload
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
        RefreshTokenCodec::new(&[7; SECRET_LENGTH])
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
        let text = codec().encode(token);
        assert_eq!(text.len(), ENCODED_LENGTH);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
        assert_eq!(&bytes[..4], b"drt\x01");
        assert_eq!(&bytes[4..20], token.session_id.as_bytes());
        assert_eq!(&bytes[20..36], token.user_id.as_bytes());
        assert_eq!(&bytes[36..44], &[0, 0, 0, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn a_token_of_another_secret_is_rejected() {
        let text = RefreshTokenCodec::new(&[8; SECRET_LENGTH]).encode(token(1));
        assert_eq!(codec().decode(&text), None);
    }

    #[test]
    fn another_version_is_rejected_even_with_a_valid_mac() {
        let mut payload = payload(token(1));
        payload[3] = 2;
        assert_eq!(codec().decode(&codec().0.encode(&payload)), None);
    }

    #[test]
    fn padding_whitespace_and_the_standard_alphabet_are_rejected() {
        let text =
            (0..1000).map(|counter| codec().encode(token(counter))).find(|text| text.contains(['-', '_'])).unwrap();
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
            prop_assert_eq!(codec().decode(&codec().encode(token)), Some(token));
        }

        #[test]
        fn a_token_with_any_bit_changed_is_rejected(token in tokens(), byte in 0..TOKEN_LENGTH, bit in 0..8) {
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(codec().encode(token)).unwrap();
            bytes[byte] ^= 1_u8 << bit;
            prop_assert_eq!(codec().decode(&BASE64_URL_SAFE_NO_PAD.encode(bytes)), None);
        }

        #[test]
        fn a_token_with_any_character_changed_is_rejected(
            token in tokens(),
            index in 0..ENCODED_LENGTH,
            other in "[ -~]",
        ) {
            let mut text = codec().encode(token);
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
            let text = codec().encode(token);
            prop_assert_eq!(codec().decode(&text[..length]), None);
            prop_assert_eq!(codec().decode(&format!("{text}{more}")), None);
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in ".{0,200}") {
            prop_assert_eq!(codec().decode(&text), None);
        }
    }
}
