//! Splits and decodes a JWT: all checks that need no key.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::{TokenError, json};

/// The maximum length of a token, in bytes.
pub const MAX_LENGTH: usize = 8 * 1024;

/// The decoded segments of a token, not verified yet.
#[derive(Debug)]
pub(super) struct JwtSegments<'a> {
    /// The signing input: the first two segments, encoded (RFC 7515, section 2).
    pub(super) signing_input: &'a str,
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

/// The only header parameters allowed. `jwk`, `jku`, `x5c`, `crit` and others of RFC 7515 would let a token influence its
/// own verification.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) typ: String,
    pub(super) kid: String,
}

impl<'a> JwtSegments<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
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
        let signing_input = token.get(..=header.len() + payload.len()).ok_or(TokenError::Segments)?;
        Ok(Self {
            signing_input,
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
        // RFC 9068, section 4. The prefix of the media type is optional (RFC 7515, section 4.1.9).
        match header.typ.as_str() {
            "at+jwt" | "application/at+jwt" => Ok(header),
            _ => Err(TokenError::Type),
        }
    }
}

/// Decodes canonical base64url; rejects padding, the standard alphabet, white space and non-zero trailing bits.
fn decode(segment: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| TokenError::Encoding)
}
