//! Errors of token verification.

use crate::error::{Error, Reason};

/// Why a token is rejected. No variant contains data of the token, so all are safe to log and to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It exceeds the maximum length.
    #[error("it is longer than 8 KiB")]
    TooLong,
    /// It does not have three segments.
    #[error("it does not have three segments")]
    Segments,
    /// A segment is not canonical base64url without padding.
    #[error("a segment is not base64url without padding")]
    Encoding,
    /// The header is not an object of `alg`, `typ` and `kid`, each once and a string.
    #[error("its header does not have exactly alg, typ and kid")]
    Header,
    /// `typ` is not that of an access token.
    #[error("its typ is not at+jwt")]
    Type,
    /// No known key has its `kid`.
    #[error("no key has its kid")]
    UnknownKey,
    /// Its `alg` is not the algorithm of its key.
    #[error("its alg is not that of its key")]
    Algorithm,
    /// The signature does not verify.
    #[error("its signature is invalid")]
    Signature,
    /// A claim is missing, duplicate, or has the wrong type.
    #[error("its claims are not those of an access token")]
    Claims,
    /// It has another issuer.
    #[error("its issuer is not the expected one")]
    Issuer,
    /// It has another audience.
    #[error("its audience is not the expected one")]
    Audience,
    /// Its lifetime exceeds the maximum, or it expires before it is issued.
    #[error("its lifetime is invalid")]
    Lifetime,
    /// It is valid only in the future.
    #[error("it is not valid yet")]
    NotYetValid,
    /// It has expired.
    #[error("it has expired")]
    Expired,
    /// Its session has ended, or the user's tokens were revoked.
    #[error("it has been revoked")]
    Revoked,
    /// No keys have been fetched yet, so no token can be verified.
    #[error("the signing keys have not been fetched yet")]
    NoKeys,
    /// No known key has its `kid`, and the keys are just being fetched, since one was withdrawn.
    #[error("the signing keys are being fetched, since one was withdrawn")]
    KeysOutdated,
    /// No revocations have been received yet, so the token may be revoked.
    #[error("revocations have not been received yet")]
    NoRevocations,
}

impl TokenError {
    /// The reason in the response.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Expired => Reason::TokenExpired,
            Self::Revoked => Reason::TokenRevoked,
            Self::NoKeys | Self::KeysOutdated | Self::NoRevocations => Reason::Unavailable,
            _ => Reason::TokenInvalid,
        }
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        match error.reason() {
            Reason::TokenExpired => Self::new(Reason::TokenExpired, "the access token has expired; refresh it"),
            Reason::TokenRevoked => Self::new(Reason::TokenRevoked, "the access token has been revoked; sign in again"),
            Reason::Unavailable => Self::unavailable("access token verification", error),
            reason => Self::new(reason, format!("the access token is not valid: {error}; sign in again")),
        }
    }
}
