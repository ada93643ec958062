//! The access token of a request, checked before anything is done for it.
//!
//! Where the rule of the RPC requires a user, a missing, malformed, forged or expired token is refused here, with the error
//! of the services. The services verify the token again, and revocation only there. They also decide about some tokens of keys that
//! are not known here, which may be new.

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
        // The successor of a withdrawn key signs at once, and the services fetch it at once.
        Err(TokenError::UnknownKey) if verifier.keys().may_pass_on_unknown() => Ok(Some(header.clone())),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use drystone::{Reason, auth::v1::Jwk};
    use drystone_mesh::{
        clock::Clock,
        token::{KeySet, PublicKey, TokenVerifierConfig},
    };
    use http::header::AUTHORIZATION;

    use super::*;

    /// The header of a token of the key `known`: `{"alg":"EdDSA","typ":"at+jwt","kid":"known"}`.
    const KNOWN: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6Imtub3duIn0";
    /// The same of the key `new`.
    const NEW: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6Im5ldyJ9";

    #[test]
    fn a_bounded_number_of_tokens_of_unknown_keys_is_left_to_the_services() {
        // RFC 8037, appendix A.2.
        let jwk = Jwk {
            kty: "OKP".to_owned(),
            r#use: "sig".to_owned(),
            alg: "EdDSA".to_owned(),
            kid: "known".to_owned(),
            crv: Some("Ed25519".to_owned()),
            x: Some("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned()),
            ..Jwk::default()
        };
        let keys = KeySet::new();
        keys.replace(vec![PublicKey::from_jwk(&jwk).unwrap()]);
        let config = TokenVerifierConfig::new("issuer", "audience");
        let verifier = TokenVerifier::for_entry_point(config, keys.clone(), Clock::system());
        let check = |header: &str| {
            let token = format!("Bearer {header}.e30.AA");
            let headers = HeaderMap::from_iter([(AUTHORIZATION, token.parse().unwrap())]);
            authorization(&verifier, Subject::User, &headers)
        };
        assert_eq!(check(KNOWN).unwrap_err().reason(), Reason::TokenInvalid);
        let passed_on = (0..200).filter(|_| check(NEW).is_ok()).count();
        assert_eq!(passed_on, 100);
        assert_eq!(check(NEW).unwrap_err().reason(), Reason::TokenInvalid);
        // Until the keys are fetched again.
        keys.replace(vec![PublicKey::from_jwk(&jwk).unwrap()]);
        assert!(check(NEW).unwrap().is_some());
    }
}
