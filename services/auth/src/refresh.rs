//! Trading a refresh token for the next pair of tokens.
//!
//! Everything that can fail comes before the session is moved on, so that a refresh that fails has not used the token
//! up: while the user service is away nobody can refresh, and once it is back everybody can, with the token that they
//! have.

use std::sync::Arc;

use drystone_mesh::{
    call::{self, Call},
    clock::Clock,
};

use crate::{
    error::Error,
    property_claims::PropertyClaims,
    token::{
        refresh_token::RefreshToken,
        tokens::{TokenIssuer, Tokens},
    },
    upstreams::Upstreams,
};

/// Refreshes sessions.
pub struct Refresh {
    /// The other services.
    pub upstreams: Arc<dyn Upstreams>,
    /// What goes into the token, if it is there in time.
    pub property_claims: PropertyClaims,
    /// Who makes the tokens.
    pub issuer: Arc<TokenIssuer>,
    /// The time.
    pub clock: Clock,
}

impl Refresh {
    /// Makes tokens with the roles and properties of today, and moves the session one step on.
    ///
    /// # Errors
    /// [`Error::RefreshTokenInvalid`]; [`Error::SessionEnded`] if the account is gone; `REFRESH_TOKEN_REUSED` and
    /// `SESSION_ENDED` from the session service; what the upstreams fail with.
    pub async fn refresh(&self, call: &Call, refresh_token: &str) -> Result<Tokens, Error> {
        let RefreshToken { session_id, user_id, counter } =
            self.issuer.seal.open(refresh_token).ok_or(Error::RefreshTokenInvalid)?;

        call::record_user(user_id);
        let as_of = self.clock.now();
        let (account, claims) =
            tokio::join!(self.upstreams.account_by_id(call, user_id), self.property_claims.of(call, user_id));
        let account = account?.ok_or(Error::SessionEnded)?;

        let session = self.upstreams.rotate_session(call, session_id, counter).await?;
        if session.user_id != user_id {
            return Err(Error::RefreshTokenInvalid);
        }
        let properties = self.property_claims.or_empty(call, claims);
        self.issuer.issue(session, account, properties, as_of)
    }
}
