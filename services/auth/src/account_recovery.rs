//! An owner takes their account back: with the link in a mail about a sign-in that was not theirs, or about a change of their address.
//!
//! Somebody else may know the password, have sessions and have changed the address. So all sessions end, the password no longer serves,
//! and the account gets back the address that the mail went to, which is sent a link to choose a new password.

use std::sync::Arc;

use drystone_mesh::{call, clock::Clock};
use drystone_store::outbox::Relay;

use crate::{
    error::Error,
    follow_up::{FollowUp, is_done},
    link::Purpose,
    store::AuthStore,
    token::key_ring::KeyRing,
};

/// Gives accounts back.
#[derive(Clone)]
pub(crate) struct AccountRecovery {
    pub(crate) store: AuthStore,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) relay: Relay,
    pub(crate) clock: Clock,
}

impl AccountRecovery {
    /// Uses a link of this purpose. Returns whether all sessions have ended.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`].
    pub(crate) async fn recover(&self, token: &str, purpose: Purpose) -> Result<bool, Error> {
        let token = self.keys.current().link_tokens.decode(token, purpose).ok_or(Error::LinkInvalid)?;
        let now = self.clock.now();
        let link = self.store.valid_link(&token, now).await?.ok_or(Error::LinkInvalid)?;
        call::record_user(link.user_id);
        let (user_id, email) = (link.user_id, link.email.clone().ok_or(Error::LinkInvalid)?);
        let sessions = FollowUp::EndSessions { user_id, except: None }.message(now)?;
        let ends = sessions.id;
        let then = vec![FollowUp::SendRequiredReset { user_id, email: email.clone() }];
        let set = FollowUp::SetEmail { user_id, current: None, email, keeps_previous: false, then };
        self.store.recover(&link, &[sessions, set.message(now)?], now).await?;
        is_done(&self.relay, ends).await
    }
}
