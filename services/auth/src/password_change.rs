//! A user changes their password, and proves that they know the current one.

use std::{sync::Arc, time::Duration};

use drystone_mesh::{
    call::Call,
    clock::{Clock, Timestamp},
};
use drystone_store::outbox::{Outcome, Relay};
use uuid::Uuid;

use crate::{
    attempts::AttemptLimits,
    error::Error,
    follow_up::{FollowUp, Origin},
    password::{
        PasswordHash,
        hasher::{HashingPool, JobOrigin},
        new_password::NewPasswords,
        typed_password::{PasswordForm, TypedPassword},
    },
    store::{AuthStore, NewPassword},
};

/// How long the answer waits until the sessions have ended.
const SESSIONS_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the change is repeated if the stored hash changes meanwhile: a sign-in replaces a hash of another cost.
const MAX_TRIES: usize = 3;

/// Changes passwords.
pub(crate) struct PasswordChange {
    pub(crate) attempts: AttemptLimits,
    pub(crate) passwords: NewPasswords,
    pub(crate) hashing: Arc<HashingPool>,
    pub(crate) store: AuthStore,
    pub(crate) relay: Relay,
    pub(crate) clock: Clock,
    /// What the current password is verified against if the user has none.
    pub(crate) dummy_hash: PasswordHash,
}

impl PasswordChange {
    /// Changes the password of the user of this call, and ends their other sessions. Returns whether these have ended.
    pub(crate) async fn change(&self, call: &Call, current: TypedPassword, new: TypedPassword) -> Result<bool, Error> {
        let (user_id, session_id) = (call.principal()?.user_id, call.principal()?.session_id);
        let attempt = self.attempts.password_check(user_id).await?;
        let mut hash = None;
        for _ in 0..MAX_TRIES {
            // Each time: it may have been replaced meanwhile, by a hash of the same password or by another password.
            let stored = self.verify(call, user_id, &current).await?;
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
                return sessions_ended(&self.relay, ends).await;
            }
        }
        Err(Error::InvalidCredentials)
    }

    /// Verifies the current password, and returns its hash.
    async fn verify(&self, call: &Call, user_id: Uuid, current: &TypedPassword) -> Result<PasswordHash, Error> {
        let credential = self.store.credential(user_id).await?;
        let (hash, form) = credential.as_ref().map_or((&self.dummy_hash, PasswordForm::Opaque), |credential| {
            (&credential.password_hash, credential.form)
        });
        let (password, origin) = (current.in_form(form).clone(), origin(call));
        let verification = self.hashing.verify(password, hash.clone(), origin, call.fields().deadline).await?;
        match credential {
            Some(credential) if verification.is_match() => Ok(credential.password_hash),
            _ => Err(Error::InvalidCredentials),
        }
    }
}

/// The message that tells the user of a change.
pub(crate) fn told(call: &Call, user_id: Uuid, now: Timestamp) -> Result<drystone_store::outbox::Message, Error> {
    FollowUp::TellPasswordChanged { user_id, client: Origin::of(&call.fields().client, now) }.message(now)
}

/// Whether the sessions of a message have ended, which is waited for.
pub(crate) async fn sessions_ended(relay: &Relay, message: Uuid) -> Result<bool, Error> {
    Ok(relay.outcome(message, SESSIONS_TIMEOUT).await? == Outcome::Delivered)
}

pub(crate) fn origin(call: &Call) -> JobOrigin {
    JobOrigin::unknown(&call.fields().client)
}
