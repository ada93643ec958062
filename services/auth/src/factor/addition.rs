//! What follows from a new second factor: its user is told, and with the first one gets backup codes, and their other sessions end.

use drystone_mesh::{call::Call, clock::Timestamp};
use drystone_store::outbox::Message;
use futures_util::future::try_join_all;
use uuid::Uuid;

use super::{
    Factor,
    backup_code::{self, BackupCode},
    management::Factors,
};
use crate::{
    authentication::has_second_factor,
    error::Error,
    follow_up::{FollowUp, Origin, is_done},
    password::{PasswordHash, hasher::JobOrigin},
    upstreams::Contact,
};

/// A factor that was added.
pub(crate) struct Added {
    pub(crate) factor: Factor,
    /// If it is the first one.
    pub(crate) backup_codes: Vec<String>,
    /// Whether the other sessions have ended, if it is the first one.
    pub(crate) sessions_ended: bool,
}

/// Who adds a factor: the user of a session, or of a sign-in that asks for one.
pub(super) struct Author {
    pub(super) user_id: Uuid,
    pub(super) session_id: Option<Uuid>,
    /// Whether they have proved one.
    pub(super) has_second_factor: bool,
    pub(super) auth_time: Timestamp,
}

/// What is stored together with a new factor.
pub(super) struct Addition {
    ends: Uuid,
    codes: Vec<BackupCode>,
    /// Of the codes; none unless it is the first factor.
    pub(super) hashes: Vec<PasswordHash>,
    pub(super) messages: Vec<Message>,
}

impl Factors {
    /// The user of this call, who adds a factor.
    ///
    /// # Errors
    /// As [`Self::authorized`].
    pub(super) async fn author(&self, call: &Call) -> Result<Author, Error> {
        let user_id = self.authorized(call).await?;
        let principal = call.principal()?;
        Ok(Author {
            user_id,
            session_id: Some(principal.session_id),
            has_second_factor: has_second_factor(principal),
            auth_time: principal.auth_time,
        })
    }

    /// What is to be stored together with a new factor.
    pub(super) async fn addition(
        &self,
        call: &Call,
        author: &Author,
        contact: &Contact,
        now: Timestamp,
    ) -> Result<Addition, Error> {
        let user_id = contact.user_id;
        let client = Origin::of(&call.fields().client, now);
        let told = FollowUp::TellFactorAdded { user_id, email: contact.email.clone(), client }.message(now)?;
        let ends = FollowUp::EndSessions { user_id, except: author.session_id }.message(now)?;
        let waits_for = ends.id;
        let is_first = !self.store.has_factor(user_id).await?;
        // Again, since another one may have been added after the first check.
        if !is_first && !author.has_second_factor {
            return Err(Error::SecondFactorRequired);
        }
        let codes = if is_first { new_backup_codes()? } else { Vec::new() };
        let hashes = self.hashes(call, &codes).await?;
        let messages = if is_first { vec![told, ends] } else { vec![told] };
        Ok(Addition { ends: waits_for, codes, hashes, messages })
    }

    /// Has what follows from a stored factor done.
    pub(super) async fn added(&self, addition: Addition, factor: Factor) -> Added {
        self.relay.wake();
        // The codes are shown whatever becomes of the sessions, which end later otherwise.
        let is_first = !addition.hashes.is_empty();
        let sessions_ended = is_first && is_done(&self.relay, addition.ends).await.unwrap_or(false);
        let backup_codes = addition.codes.iter().map(BackupCode::shown).collect();
        Added { factor, backup_codes, sessions_ended }
    }

    /// The hashes of backup codes.
    pub(super) async fn hashes(&self, call: &Call, codes: &[BackupCode]) -> Result<Vec<PasswordHash>, Error> {
        let hash = async |code: &BackupCode| {
            let (origin, deadline) = (JobOrigin::unknown(&call.fields().client), call.fields().deadline);
            self.check.hashing.hash(code.to_password(), origin, deadline).await
        };
        Ok(try_join_all(codes.iter().map(hash)).await?)
    }
}

/// Ten backup codes.
pub(super) fn new_backup_codes() -> Result<Vec<BackupCode>, Error> {
    (0..backup_code::COUNT).map(|number| BackupCode::generate(number).ok_or(Error::Random)).collect()
}
