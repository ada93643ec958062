//! Why a token is refused.

use crate::error::{Error, Reason};

/// Why a token is refused. No variant holds anything of the token itself, so all of them are safe to log and to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than any token of ours.
    #[error("it is longer than 8 KiB")]
    TooLong,
    /// Not three segments.
    #[error("it does not have three segments")]
    Segments,
    /// A segment is not canonical base64url without padding.
    #[error("a segment is not base64url without padding")]
    Encoding,
    /// The header is not an object of `alg`, `typ` and `kid`, each once and a string.
    #[error("its header is not made of alg, typ and kid alone")]
    Header,
    /// `typ` says that it is something else.
    #[error("its typ is not at+jwt")]
    Type,
    /// No key of ours has its `kid`.
    #[error("no key has its kid")]
    UnknownKey,
    /// The key that `kid` names is for another algorithm.
    #[error("its alg is not the one that its key is for")]
    Algorithm,
    /// The signature is not the key's.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is missing, stands twice, or has the wrong type.
    #[error("its claims are not those of an access token")]
    Claims,
    /// Made by somebody else.
    #[error("its issuer is another")]
    Issuer,
    /// Made for somebody else.
    #[error("its audience is another")]
    Audience,
    /// It would live longer than any token of ours, or ends before it begins.
    #[error("its lifetime is not a valid one")]
    Lifetime,
    /// It begins in the future.
    #[error("it is not valid yet")]
    NotYetValid,
    /// It has ended.
    #[error("it has expired")]
    Expired,
    /// Its session is over, or the user's tokens were made void.
    #[error("it has been revoked")]
    Revoked,
    /// No keys have been fetched yet, so nothing can be said of any token.
    #[error("the keys to check it with have not arrived")]
    NoKeys,
    /// Nothing has been heard of revocations yet, so the token may be dead.
    #[error("what has been revoked has not arrived")]
    NoRevocations,
}

impl TokenError {
    /// The reason that the caller is given.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Expired => Reason::TokenExpired,
            Self::Revoked => Reason::TokenRevoked,
            Self::NoKeys | Self::NoRevocations => Reason::Unavailable,
            _ => Reason::TokenInvalid,
        }
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        match error.reason() {
            Reason::TokenExpired => Self::new(Reason::TokenExpired, "the access token has expired; refresh it"),
            Reason::TokenRevoked => Self::new(Reason::TokenRevoked, "the access token has been revoked; sign in again"),
            Reason::Unavailable => Self::unavailable("what access tokens are checked with", error),
            reason => Self::new(reason, format!("the access token is not valid: {error}; sign in again")),
        }
    }
}
