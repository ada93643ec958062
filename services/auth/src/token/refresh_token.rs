//! Refresh tokens: `{session, user, counter}` and a MAC, so that nothing need be stored but the session's counter.
//!
//! | bytes | hold |
//! |---|---|
//! | 0..3 | `drt` |
//! | 3 | the version, 1 |
//! | 4..20 | the session's id |
//! | 20..36 | the user's id |
//! | 36..44 | the counter, big-endian |
//! | 44..76 | HMAC-SHA256 (RFC 2104) of all that stands before |
//!
//! The user's id is the session's own business; the token carries it so that a refresh can ask for the user's roles
//! before it uses the token up.
//!
//! On the wire: base64url without padding (RFC 4648, section 5), 102 characters. The spare bits of the last one have
//! to be zero, so that each token has one spelling.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use uuid::Uuid;
use zeroize::Zeroizing;

const PREFIX: [u8; 4] = *b"drt\x01";
const PAYLOAD_LENGTH: usize = 44;
const TOKEN_LENGTH: usize = 76;
/// The length of the secret, in bytes: as long as the MAC, as RFC 2104 advises.
pub const SECRET_LENGTH: usize = 32;

/// What a refresh token says: "the holder may move this session of this user from this counter on".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshToken {
    /// The session.
    pub session_id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// The session's counter when the token was made.
    pub counter: u64,
}

/// Makes refresh tokens, and knows its own again.
#[derive(Debug)]
pub struct RefreshTokenSeal {
    key: hmac::Key,
}

impl RefreshTokenSeal {
    /// A seal with this secret.
    #[must_use]
    pub fn new(secret: &[u8; SECRET_LENGTH]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// The token as its holder gets it.
    #[must_use]
    pub fn seal(&self, token: RefreshToken) -> String {
        let payload = payload(token);
        let tag = hmac::sign(&self.key, &payload);
        let mut bytes = Zeroizing::new([0; TOKEN_LENGTH]);
        let (head, tail) = bytes.split_at_mut(PAYLOAD_LENGTH);
        head.copy_from_slice(&payload);
        tail.copy_from_slice(tag.as_ref());
        BASE64_URL_SAFE_NO_PAD.encode(bytes.as_ref())
    }

    /// What a token says, if it is one of ours and whole. The comparison takes the same time wherever they differ.
    #[must_use]
    pub fn open(&self, text: &str) -> Option<RefreshToken> {
        let mut bytes = Zeroizing::new([0; TOKEN_LENGTH]);
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut()).ok()?;
        if length != TOKEN_LENGTH {
            return None;
        }
        let (payload, tag) = bytes.split_first_chunk::<PAYLOAD_LENGTH>()?;
        hmac::verify(&self.key, payload, tag).ok()?;

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
    use proptest::prelude::*;

    use super::*;

    /// The length of a token on the wire.
    const TEXT_LENGTH: usize = 102;

    fn seal() -> RefreshTokenSeal {
        RefreshTokenSeal::new(&[7; SECRET_LENGTH])
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
    fn a_token_has_the_shape_that_is_documented() {
        let token = token(3);
        let text = seal().seal(token);
        assert_eq!(text.len(), TEXT_LENGTH);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
        assert_eq!(&bytes[..4], b"drt\x01");
        assert_eq!(&bytes[4..20], token.session_id.as_bytes());
        assert_eq!(&bytes[20..36], token.user_id.as_bytes());
        assert_eq!(&bytes[36..44], &[0, 0, 0, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn another_secrets_token_is_refused() {
        let text = RefreshTokenSeal::new(&[8; SECRET_LENGTH]).seal(token(1));
        assert_eq!(seal().open(&text), None);
    }

    #[test]
    fn another_version_is_refused_even_under_a_good_mac() {
        let mut payload = payload(token(1));
        payload[3] = 2;
        let tag = hmac::sign(&seal().key, &payload);
        let text = BASE64_URL_SAFE_NO_PAD.encode([&payload, tag.as_ref()].concat());
        assert_eq!(seal().open(&text), None);
    }

    #[test]
    fn padding_whitespace_and_the_other_alphabet_are_refused() {
        let text = (0..1000).map(|counter| seal().seal(token(counter))).find(|text| text.contains(['-', '_'])).unwrap();
        let others = [
            format!("{text}="),
            format!("{text}===="),
            format!(" {text}"),
            format!("{text}\n"),
            text.replace('-', "+").replace('_', "/"),
            String::new(),
        ];
        for other in others {
            assert_eq!(seal().open(&other), None, "{other:?}");
        }
        assert!(seal().open(&text).is_some());
    }

    proptest! {
        #[test]
        fn a_token_says_what_was_sealed(token in tokens()) {
            prop_assert_eq!(seal().open(&seal().seal(token)), Some(token));
        }

        #[test]
        fn a_token_with_any_bit_changed_is_refused(token in tokens(), byte in 0..TOKEN_LENGTH, bit in 0..8) {
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(seal().seal(token)).unwrap();
            bytes[byte] ^= 1_u8 << bit;
            prop_assert_eq!(seal().open(&BASE64_URL_SAFE_NO_PAD.encode(bytes)), None);
        }

        #[test]
        fn a_token_with_any_character_changed_is_refused(token in tokens(), at in 0..TEXT_LENGTH, other in "[ -~]") {
            let mut text = seal().seal(token);
            prop_assume!(text[at..=at] != other);
            text.replace_range(at..=at, &other);
            prop_assert_eq!(seal().open(&text), None);
        }

        #[test]
        fn a_token_that_is_cut_or_lengthened_is_refused(token in tokens(), cut in 0..TEXT_LENGTH, more in "[A-Za-z0-9_-]{1,8}") {
            let text = seal().seal(token);
            prop_assert_eq!(seal().open(&text[..cut]), None);
            prop_assert_eq!(seal().open(&format!("{text}{more}")), None);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            prop_assert_eq!(seal().open(&text), None);
        }
    }
}
