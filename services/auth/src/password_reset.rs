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
    error::Error,
    follow_up::FollowUp,
    password::{
        new_password::NewPasswords,
        typed_password::{PasswordForm, TypedPassword},
    },
    password_change::{sessions_ended, told},
    store::{AuthStore, NewPassword},
    token::{key_ring::KeyRing, link_token::Purpose},
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
        let purpose = Purpose::PasswordReset;
        let token = self.keys.current().link_tokens.decode(token, purpose).ok_or(Error::LinkInvalid)?;
        // Before the password is hashed, which costs most.
        let user_id = self.store.valid_link(&token, purpose, self.clock.now()).await?.ok_or(Error::LinkInvalid)?;
        call::record_user(user_id);
        let hash = self.passwords.hash(call, user_id, &new).await?;
        let now = self.clock.now();
        let sessions = FollowUp::EndSessions { user_id, except: None }.message(now)?;
        let ends = sessions.id;
        let messages = vec![sessions, told(call, user_id, now)?];
        let new = NewPassword { user_id, hash, form: PasswordForm::Opaque, messages, now };
        self.store.reset_password(token.id, &new).await?;
        sessions_ended(&self.relay, ends).await
    }
}
