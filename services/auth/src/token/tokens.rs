//! The token pair of a sign-in or refresh, and its issuer.

use std::{collections::BTreeMap, sync::Arc};

use drystone_mesh::clock::{Clock, Timestamp};
use uuid::Uuid;

use crate::{
    error::Error,
    token::{
        access_token_signer::{AccessTokenParams, AccessTokenSigner},
        key_ring::KeyRing,
        key_spec::KeySpec,
        refresh_token::RefreshToken,
        signing_key::SignError,
    },
    upstreams::{AccountClaims, SessionState},
};

/// The token type (RFC 6750).
pub const TOKEN_TYPE: &str = "Bearer";

/// An access token and a refresh token of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// The access token, a JWT.
    pub access_token: String,
    /// The refresh token.
    pub refresh_token: String,
    /// The remaining lifetime of the access token, in seconds.
    pub expires_in: i32,
    /// The session.
    pub session_id: Uuid,
    /// The user of the session.
    pub user_id: Uuid,
}

/// Issues the token pair of a session: an access token by `AccessTokenSigner`, and the matching refresh token.
#[derive(Debug)]
pub struct TokenIssuer {
    /// Signs access tokens.
    pub access_token_signer: Arc<AccessTokenSigner>,
    /// The keys of refresh tokens.
    pub keys: Arc<KeyRing>,
    /// Source of time.
    pub clock: Clock,
}

impl TokenIssuer {
    /// Issues the tokens of a session. `as_of` is a time before `account` and `properties` were read.
    ///
    /// # Errors
    /// [`Error::Signing`]; [`Error::KeysStale`] if the key that signs was withdrawn and the next one cannot be read.
    pub async fn issue(
        &self,
        session: SessionState,
        account: AccountClaims,
        properties: BTreeMap<String, String>,
        as_of: Timestamp,
    ) -> Result<TokenPair, Error> {
        let keys = self.keys.ready_to_sign().await?;
        let SessionState { session_id, user_id, auth_time, amr, counter, is_shared: _ } = session;
        let params = AccessTokenParams {
            user_id,
            session_id,
            auth_time,
            amr,
            as_of,
            roles: account.roles,
            permissions: account.permissions,
            claims_expire_at: account.expire_time,
            properties,
        };
        let signer = &self.access_token_signer;
        // A signature of RSA takes a millisecond or more.
        let access_token = if matches!(self.keys.signing_key(&keys)?.spec(), KeySpec::Rs256(_)) {
            let signer = Arc::clone(signer);
            let outcome = tokio::task::spawn_blocking(move || signer.sign(params)).await;
            outcome.map_err(|_| Error::Signing(SignError::Key))??
        } else {
            signer.sign(params)?
        };
        let token = RefreshToken { session_id, user_id, counter };
        let expires_in = access_token.expires_at.timestamp() - self.clock.now().timestamp();
        Ok(TokenPair {
            access_token: access_token.jwt,
            refresh_token: self.keys.current().refresh_tokens.encode(token, self.keys.now()),
            expires_in: i32::try_from(expires_in.max(0)).unwrap_or(i32::MAX),
            session_id,
            user_id,
        })
    }
}
