//! Opaque tokens: a payload and its MAC.
//!
//! On the wire: base64url without padding (RFC 4648, section 5). The unused bits of the last character must be zero, so that
//! each token has one encoding.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// The length of the secret in bytes: the length of the MAC, as RFC 2104 recommends.
pub const SECRET_LENGTH: usize = 32;

/// The length of the MAC in bytes: HMAC-SHA256 (RFC 2104).
const TAG_LENGTH: usize = 32;

/// Encodes and authenticates payloads with a secret key.
#[derive(Debug)]
pub struct TokenMac(hmac::Key);

impl TokenMac {
    /// With this HMAC key.
    #[must_use]
    pub fn new(secret: &[u8; SECRET_LENGTH]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A payload with its MAC.
    #[must_use]
    pub fn encode(&self, payload: &[u8]) -> String {
        let tag = hmac::sign(&self.0, payload);
        let bytes = Zeroizing::new([payload, tag.as_ref()].concat());
        BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice())
    }

    /// The payload of a token; `None` if it is malformed or its MAC is invalid. Compares MACs in constant time.
    #[must_use]
    pub fn decode<const N: usize>(&self, text: &str) -> Option<Zeroizing<[u8; N]>> {
        let mut bytes = Zeroizing::new(vec![0; N + TAG_LENGTH]);
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut()).ok()?;
        if length != N + TAG_LENGTH {
            return None;
        }
        let (payload, tag) = bytes.split_first_chunk::<N>()?;
        hmac::verify(&self.0, payload, tag).ok()?;
        Some(Zeroizing::new(*payload))
    }
}
