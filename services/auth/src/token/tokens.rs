//! What a sign-in and a refresh answer: an access token, a refresh token, and how long the first one lives.

use std::collections::BTreeMap;

use drystone_mesh::clock::{Clock, Timestamp};
use uuid::Uuid;

use crate::{
    error::Error,
    token::{
        access_token_signer::{AccessTokenSigner, Grant},
        refresh_token::{RefreshToken, RefreshTokenSeal},
    },
    upstreams::{Account, SessionState},
};

/// How tokens are sent (RFC 6750).
pub const TOKEN_TYPE: &str = "Bearer";

/// A pair of tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The JWT.
    pub access_token: String,
    /// What gets the next pair.
    pub refresh_token: String,
    /// How long the access token lives, in seconds.
    pub expires_in: i32,
    /// The session.
    pub session_id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
}

/// Makes pairs of tokens.
#[derive(Debug)]
pub struct TokenIssuer {
    /// Makes the first of a pair.
    pub maker: AccessTokenSigner,
    /// Makes the second.
    pub seal: RefreshTokenSeal,
    /// The time.
    pub clock: Clock,
}

impl TokenIssuer {
    /// The tokens of a session, for an account and its properties as they were at `as_of`.
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub fn issue(
        &self,
        session: SessionState,
        account: Account,
        properties: BTreeMap<String, String>,
        as_of: Timestamp,
    ) -> Result<Tokens, Error> {
        let SessionState { session_id, user_id, create_time, counter } = session;
        let access = self.maker.make(Grant {
            user_id,
            session_id,
            auth_time: create_time,
            as_of,
            roles: account.roles,
            permissions: account.permissions,
            properties,
        })?;
        let left = access.expires_at.timestamp() - self.clock.now().timestamp();
        Ok(Tokens {
            access_token: access.jwt,
            refresh_token: self.seal.seal(RefreshToken { session_id, user_id, counter }),
            expires_in: i32::try_from(left.max(0)).unwrap_or(i32::MAX),
            session_id,
            user_id,
        })
    }
}
