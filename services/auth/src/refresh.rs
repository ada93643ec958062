//! Refresh: exchanges a refresh token for a new pair of tokens.
//!
//! Everything that can fail comes before the session is rotated, so a failed refresh does not consume the refresh
//! token. While the user service is unavailable, refreshes fail; when it recovers, they succeed with the same token.

use std::sync::Arc;

use drystone_mesh::{
    call::{self, Call},
    clock::Clock,
    error::{Chain, Reason},
};
use drystone_store::outbox::Relay;
use uuid::Uuid;

use crate::{
    attempts::AttemptLimits,
    error::Error,
    factor::requirement::FactorRequirement,
    follow_up::{FollowUp, Origin},
    property_claims::PropertyClaims,
    store::AuthStore,
    token::{
        refresh_token::RefreshToken,
        tokens::{TokenIssuer, TokenPair},
    },
    upstreams::Upstreams,
};

/// Refreshes sessions.
pub struct Refresh {
    /// Rate limits.
    pub attempts: AttemptLimits,
    /// The other services.
    pub upstreams: Arc<dyn Upstreams>,
    /// Fetches the property claims of the access token.
    pub property_claims: PropertyClaims,
    /// Issues the tokens.
    pub issuer: Arc<TokenIssuer>,
    /// Which users need a second factor.
    pub requirement: FactorRequirement,
    /// Keeps what the user is told.
    pub store: AuthStore,
    /// Delivers it.
    pub relay: Relay,
    /// Source of time.
    pub clock: Clock,
}

impl Refresh {
    /// Rotates the session and issues tokens with the user's current roles and properties.
    ///
    /// # Errors
    /// [`Error::RefreshTokenInvalid`], or [`Error::KeysStale`] if the keys are; [`Error::SessionEnded`] if the account no longer exists or is disabled;
    /// [`Error::EnrolmentRequired`]; `REFRESH_TOKEN_REUSED`
    /// and `SESSION_ENDED` from the session service; other errors of the upstreams.
    pub async fn refresh(&self, call: &Call, refresh_token: &str) -> Result<TokenPair, Error> {
        let keys = &self.issuer.keys;
        let Some(RefreshToken { session_id, user_id, counter }) = keys.current().refresh_tokens.decode(refresh_token)
        else {
            return Err(if keys.is_stale() { Error::KeysStale } else { Error::RefreshTokenInvalid });
        };

        call::record_user(user_id);
        self.attempts.refresh(session_id).await?;
        let as_of = self.clock.now();
        let (account, claims) =
            tokio::join!(self.upstreams.account_by_id(call, user_id), self.property_claims.fetch(call, user_id));
        let account = account?.filter(|account| !account.is_disabled).ok_or(Error::SessionEnded)?;

        if self.requirement.applies(&account.roles) && !self.store.has_factor(user_id).await? {
            let required_at = self.requirement.due_at(user_id, &account.roles, as_of).await?;
            if required_at.is_some_and(|required_at| required_at <= as_of) {
                return Err(Error::EnrolmentRequired);
            }
        }

        let session = match self.upstreams.rotate_session(call, session_id, counter).await {
            Ok(session) => session,
            Err(error) => {
                if matches!(&error, Error::Upstream(error) if error.reason() == Reason::RefreshTokenReused) {
                    // One of two has a stolen token. The session service says so once of a session.
                    self.tell(call, user_id, |client| FollowUp::TellTokenReused { user_id, client }).await;
                }
                return Err(error);
            }
        };
        if session.user_id != user_id {
            return Err(Error::RefreshTokenInvalid);
        }
        if session.is_shared {
            self.tell(call, user_id, |client| FollowUp::TellSessionShared { user_id, client }).await;
        }
        let properties = self.property_claims.or_empty(call, claims);
        self.issuer.issue(session, account, properties, as_of).await
    }

    /// Tells the user what has happened to their session.
    async fn tell(&self, call: &Call, user_id: Uuid, follow_up: impl FnOnce(Origin) -> FollowUp) {
        let now = self.clock.now();
        let follow_up = follow_up(Origin::of(&call.fields().client, now));
        let stored = async { self.store.put(&follow_up.message(now)?).await };
        match stored.await {
            Ok(()) => self.relay.wake(),
            // What has happened to the session has happened all the same.
            Err(error) => {
                tracing::error!(%user_id, cause = %Chain(&error), "the user is not told of the use of a refresh token by two");
            }
        }
    }
}
