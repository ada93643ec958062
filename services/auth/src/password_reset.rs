//! A forgotten password: a link is sent to the address of the account, and sets a new one.
//!
//! A request stores a message and does nothing else, whether the address has an account or not: so its answer and its time tell nothing.
//! The message is delivered afterwards (`follow_up.rs`).

use std::sync::Arc;

use drystone_mesh::{
    call::{self, Call},
    clock::Clock,
    email::Email,
};
use drystone_store::outbox::Relay;

use crate::{
    email_verification::set_verified,
    error::Error,
    follow_up::{FollowUp, is_done},
    link::Purpose,
    password::{
        new_password::NewPasswords,
        typed_password::{PasswordForm, TypedPassword},
    },
    password_change::told,
    store::{AuthStore, NewPassword},
    token::key_ring::KeyRing,
};

/// Resets passwords.
pub(crate) struct PasswordReset {
    pub(crate) passwords: NewPasswords,
    pub(crate) store: AuthStore,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) relay: Relay,
    pub(crate) clock: Clock,
}

impl PasswordReset {
    /// Has a link sent to this address, if it has an account that can sign in.
    pub(crate) async fn request(&self, email: &str) -> Result<(), Error> {
        // A text that is no address has no account.
        let key = Email::parse(email).map_or_else(|_| String::new(), |email| email.key());
        let message = FollowUp::SendPasswordReset { email: key }.message(self.clock.now())?;
        self.store.put(&message).await?;
        self.relay.wake();
        Ok(())
    }

    /// Sets a new password with the token of a link, and ends all sessions of its user. Returns whether these have ended.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`].
    pub(crate) async fn reset(&self, call: &Call, token: &str, new: TypedPassword) -> Result<bool, Error> {
        let token = self.keys.current().link_tokens.decode(token, Purpose::PasswordReset).ok_or(Error::LinkInvalid)?;
        // Before the password is hashed, which costs most.
        let link = self.store.valid_link(&token, self.clock.now()).await?.ok_or(Error::LinkInvalid)?;
        let user_id = link.user_id;
        call::record_user(user_id);
        let contact = self.passwords.upstreams.contact_by_id(call, user_id).await?.ok_or(Error::LinkInvalid)?;
        // It was sent to an address that is no longer that of the account.
        if link.email.as_ref().is_some_and(|email| !contact.has_email(email)) {
            return Err(Error::LinkInvalid);
        }
        let hash = self.passwords.hash_for(call, contact, &new).await?;
        let now = self.clock.now();
        let sessions = FollowUp::EndSessions { user_id, except: None }.message(now)?;
        let mut waited = vec![sessions.id];
        let mut messages = vec![sessions, told(call, user_id, now)?];
        // Who has the link reads the mails of the address.
        if let Some(email) = &link.email {
            let verified = set_verified(&link, email).message(now)?;
            waited.push(verified.id);
            messages.push(verified);
        }
        let new = NewPassword { user_id, hash, form: PasswordForm::Opaque, messages, now };
        self.store.reset_password(&link, &new).await?;
        let mut sessions_ended = true;
        for message in waited.into_iter().rev() {
            sessions_ended = is_done(&self.relay, message).await?;
        }
        Ok(sessions_ended)
    }
}
