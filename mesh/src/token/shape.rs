//! The shape of a token: everything that can be said of it without a key.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::{TokenError, json};

/// The longest token that is looked at, in bytes.
pub(super) const MAX_LENGTH: usize = 8 * 1024;

/// A token taken apart; nothing in it is proved yet.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// What the signature is over: the first two segments as they stand.
    pub(super) signed: &'a str,
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

/// All that a header may hold. `jwk`, `jku`, `x5c`, `crit` and the rest of RFC 7515 would let a token say how it wants
/// to be believed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) typ: String,
    pub(super) kid: String,
}

impl<'a> Parts<'a> {
    pub(super) fn of(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_LENGTH {
            return Err(TokenError::TooLong);
        }
        let mut segments = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(TokenError::Segments);
        };
        if [header, payload, signature].iter().any(|segment| segment.is_empty()) {
            return Err(TokenError::Segments);
        }
        let signed = token.get(..=header.len() + payload.len()).ok_or(TokenError::Segments)?;
        Ok(Self {
            signed,
            header: Header::parse(&decode(header)?)?,
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        let text = json::object(bytes).ok_or(TokenError::Header)?;
        let header: Self = serde_json::from_str(text).map_err(|_| TokenError::Header)?;
        // RFC 9068, section 4. The media type may be given with or without its prefix (RFC 7515, section 4.1.9).
        match header.typ.as_str() {
            "at+jwt" | "application/at+jwt" => Ok(header),
            _ => Err(TokenError::Type),
        }
    }
}

/// The engine refuses padding, the standard alphabet, white space, and bits that no encoder would set.
fn decode(segment: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| TokenError::Encoding)
}
