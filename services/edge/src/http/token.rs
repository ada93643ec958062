//! The access token of a request, checked before anything is done for it.
//!
//! Where the rule of the RPC requires a user, a missing, malformed, forged or expired token is refused here, with the error
//! of the services. The services verify the token again, and revocation only there.

use drystone::contract::Subject;
use drystone_mesh::{
    error::Result,
    token::{BearerToken, TokenError, TokenVerifier},
};
use http::{HeaderMap, HeaderValue};

/// The `authorization` header to pass on; `None` if the RPC requires no user.
///
/// # Errors
/// `TOKEN_MISSING`, `TOKEN_INVALID` or `TOKEN_EXPIRED`.
pub(crate) fn authorization(
    verifier: &TokenVerifier,
    subject: Subject,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>> {
    if subject == Subject::None {
        return Ok(None);
    }
    let BearerToken { header, token } = BearerToken::of(headers)?;
    match verifier.verify(token) {
        // Without keys the services decide.
        Ok(_) | Err(TokenError::NoKeys) => Ok(Some(header.clone())),
        Err(error) => Err(error.into()),
    }
}
