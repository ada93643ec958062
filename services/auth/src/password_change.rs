//! A user changes their password, and proves that they know the current one.

use drystone_mesh::{
    call::Call,
    clock::{Clock, Timestamp},
};
use drystone_store::outbox::{Message, Relay};
use uuid::Uuid;

use crate::{
    authentication::assert_strongest,
    error::Error,
    follow_up::{FollowUp, Origin, is_done},
    password::{
        new_password::NewPasswords,
        typed_password::{PasswordForm, TypedPassword},
    },
    password_check::PasswordCheck,
    store::{AuthStore, NewPassword},
};

/// How often the change is repeated if the stored hash changes meanwhile: a sign-in replaces a hash of another cost.
const MAX_TRIES: usize = 3;

/// Changes passwords.
pub(crate) struct PasswordChange {
    pub(crate) check: PasswordCheck,
    pub(crate) passwords: NewPasswords,
    pub(crate) store: AuthStore,
    pub(crate) relay: Relay,
    pub(crate) clock: Clock,
}

impl PasswordChange {
    /// Changes the password of the user of this call, and ends their other sessions. Returns whether these have ended.
    pub(crate) async fn change(&self, call: &Call, current: TypedPassword, new: TypedPassword) -> Result<bool, Error> {
        let (user_id, session_id) = (call.principal()?.user_id, call.principal()?.session_id);
        assert_strongest(call.principal()?, &self.store).await?;
        let attempt = self.check.attempts.password_check(user_id).await?;
        let mut hash = None;
        for _ in 0..MAX_TRIES {
            // Each time: it may have been replaced meanwhile, by a hash of the same password or by another password.
            let stored = self.check.verify(call, user_id, &current).await?;
            let hash = match &hash {
                Some(hash) => hash,
                None => hash.insert(self.passwords.hash(call, user_id, &new).await?),
            };
            let now = self.clock.now();
            let sessions = FollowUp::EndSessions { user_id, except: Some(session_id) }.message(now)?;
            let ends = sessions.id;
            let new = NewPassword {
                user_id,
                hash: hash.clone(),
                form: PasswordForm::Opaque,
                messages: vec![sessions, told(call, user_id, now)?],
                now,
            };
            if self.store.change_password(&stored, &new).await? {
                attempt.succeeded().await;
                return is_done(&self.relay, ends).await;
            }
        }
        Err(Error::InvalidCredentials)
    }
}

/// The message that tells the user of a change.
pub(crate) fn told(call: &Call, user_id: Uuid, now: Timestamp) -> Result<Message, Error> {
    FollowUp::TellPasswordChanged { user_id, client: Origin::of(&call.fields().client, now) }.message(now)
}
