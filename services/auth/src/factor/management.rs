//! Users add, rename and remove their second factors.

use std::sync::Arc;

use drystone_mesh::{
    call::Call,
    clock::{Clock, Timestamp},
    display_name::DisplayName,
    error::Chain,
    id,
};
use drystone_store::outbox::{Message, Relay};
use futures_util::future::try_join_all;
use qrcode::{EcLevel, QrCode, render::svg};
use uuid::Uuid;

use super::{
    CONFIRM_TIMEOUT, Change, Factor, StoredFactor,
    backup_code::{self, BackupCode},
    check::FactorCheck,
    totp::Secret,
};
use crate::{
    authentication::Method,
    error::Error,
    follow_up::{FollowUp, Origin, is_done},
    password::{PasswordHash, hasher::JobOrigin},
    store::{AuthStore, factor_place},
    upstreams::Upstreams,
};

/// The smallest side of a QR code, in pixels.
const QR_CODE_SIZE: u32 = 240;

/// An authenticator app that was begun. Its texts are for its user alone.
pub(crate) struct BegunTotp {
    pub(crate) factor_id: Uuid,
    pub(crate) secret: String,
    pub(crate) uri: String,
    pub(crate) qr_code_svg: String,
    pub(crate) expires_at: Timestamp,
}

/// An authenticator app that was confirmed.
pub(crate) struct ConfirmedTotp {
    pub(crate) factor: Factor,
    /// If it is the first one.
    pub(crate) backup_codes: Vec<String>,
    pub(crate) sessions_ended: bool,
}

/// Adds, renames and removes second factors.
pub(crate) struct Factors {
    pub(crate) check: FactorCheck,
    pub(crate) upstreams: Arc<dyn Upstreams>,
    pub(crate) store: AuthStore,
    pub(crate) relay: Relay,
    pub(crate) clock: Clock,
    /// How apps name this service.
    pub(crate) issuer_name: String,
}

impl Factors {
    /// The second factors of the user of this call, and how many backup codes are left.
    pub(crate) async fn list(&self, call: &Call) -> Result<(Vec<Factor>, i64), Error> {
        let user_id = call.principal()?.user_id;
        let factors = self.store.confirmed_factors(user_id).await?.into_iter().map(|stored| stored.factor);
        Ok((factors.collect(), self.store.backup_codes_left(user_id).await?))
    }

    /// Begins to add an authenticator app. The address of the account has to be verified: nobody keeps the owner of an address out of an
    /// account that they have registered with it.
    ///
    /// # Errors
    /// [`Error::TooManyFactors`]; [`Error::EmailNotVerified`]; [`Error::SecondFactorRequired`].
    pub(crate) async fn begin(&self, call: &Call, display_name: DisplayName) -> Result<BegunTotp, Error> {
        let user_id = self.authorized(call).await?;
        let contact = self.upstreams.contact_by_id(call, user_id).await?.ok_or(Error::SessionEnded)?;
        if !contact.email_verified {
            return Err(Error::EmailNotVerified);
        }
        let (now, secret) = (self.clock.now(), Secret::generate().ok_or(Error::Random)?);
        let (id, display_name) = (id::v7_at(now), display_name.into_string());
        let sealed = self.check.sealer.seal(factor_place(&id), secret.expose()).await.map_err(Error::Seal)?;
        let factor = Factor { id, user_id, display_name, created_at: now, last_used_at: None };
        if !self.store.begin_factor(&StoredFactor { factor, secret: sealed }).await? {
            return Err(Error::TooManyFactors);
        }
        let uri = secret.to_uri(&self.issuer_name, &contact.email);
        let qr_code = QrCode::with_error_correction_level(&uri, EcLevel::M).map_err(|_| Error::QrCode)?;
        let qr_code_svg = qr_code.render::<svg::Color<'_>>().min_dimensions(QR_CODE_SIZE, QR_CODE_SIZE).build();
        Ok(BegunTotp { factor_id: id, secret: secret.to_base32(), uri, qr_code_svg, expires_at: now + CONFIRM_TIMEOUT })
    }

    /// Adds the authenticator app that was begun, with a code that it shows. The session is then one with two factors, and with the first
    /// app the others end.
    ///
    /// # Errors
    /// [`Error::FactorNotFound`]; [`Error::CodeInvalid`].
    pub(crate) async fn confirm(&self, call: &Call, factor_id: Uuid, code: &str) -> Result<ConfirmedTotp, Error> {
        let (user_id, session_id) = (self.authorized(call).await?, call.principal()?.session_id);
        let now = self.clock.now();
        let stored = self.store.begun_factor(user_id, factor_id, now).await?.ok_or(Error::FactorNotFound)?;
        let step = self.check.step_of(&stored, code).await?.ok_or(Error::CodeInvalid)?;
        let contact = self.upstreams.contact_by_id(call, user_id).await?.ok_or(Error::SessionEnded)?;
        let client = Origin::of(&call.fields().client, now);
        let told = FollowUp::TellFactorAdded { user_id, email: contact.email, client }.message(now)?;
        let ends = FollowUp::EndSessions { user_id, except: Some(session_id) }.message(now)?;
        let waits_for = ends.id;
        let mut codes = new_backup_codes()?;
        let hashes = if self.store.has_factor(user_id).await? { Vec::new() } else { self.hashes(call, &codes).await? };
        let first = [told.clone(), ends];
        let messages = if hashes.is_empty() { std::slice::from_ref(&told) } else { first.as_slice() };
        if !self.store.confirm_factor(&stored.factor, step, &hashes, messages, now).await? {
            // Another one was added or removed meanwhile.
            return Err(Error::FactorsChanged);
        }
        self.relay.wake();
        let is_first = !hashes.is_empty();
        if !is_first {
            codes.clear();
        }
        // The next token says so; without it, the user signs in again for what asks for two factors.
        let methods = [Method::Password, Method::OneTimePassword];
        if let Err(error) = self.upstreams.raise_session(call, user_id, session_id, &methods).await {
            tracing::info!(%user_id, cause = %Chain(&error), "the session was not raised");
        }
        // The codes are shown whatever becomes of the sessions, which end later otherwise.
        let sessions_ended = is_first && is_done(&self.relay, waits_for).await.unwrap_or(false);
        let factor = Factor { last_used_at: Some(now), ..stored.factor };
        Ok(ConfirmedTotp { factor, backup_codes: codes.iter().map(BackupCode::shown).collect(), sessions_ended })
    }

    /// Replaces the backup codes of the user of this call.
    ///
    /// # Errors
    /// [`Error::NoSecondFactor`].
    pub(crate) async fn regenerate(&self, call: &Call) -> Result<Vec<String>, Error> {
        let (user_id, now) = (self.authorized(call).await?, self.clock.now());
        if !self.store.has_factor(user_id).await? {
            return Err(Error::NoSecondFactor);
        }
        let codes = new_backup_codes()?;
        let hashes = self.hashes(call, &codes).await?;
        let told = told(call, user_id, Change::BackupCodesReplaced, now)?;
        self.store.replace_backup_codes(user_id, &hashes, &[told], now).await?;
        self.relay.wake();
        Ok(codes.iter().map(BackupCode::shown).collect())
    }

    /// Renames a second factor of the user of this call.
    ///
    /// # Errors
    /// [`Error::FactorNotFound`].
    pub(crate) async fn rename(&self, call: &Call, id: Uuid, display_name: DisplayName) -> Result<Factor, Error> {
        let user_id = call.principal()?.user_id;
        let renamed = self.store.rename_factor(user_id, id, &display_name.into_string()).await?;
        renamed.ok_or(Error::FactorNotFound)
    }

    /// Removes a second factor of the user of this call.
    ///
    /// # Errors
    /// [`Error::FactorNotFound`].
    pub(crate) async fn remove(&self, call: &Call, id: Uuid) -> Result<(), Error> {
        let user_id = self.authorized(call).await?;
        let told = told(call, user_id, Change::Removed, self.clock.now())?;
        if !self.store.remove_factors(user_id, Some(id), &[told], &[]).await? {
            return Err(Error::FactorNotFound);
        }
        self.relay.wake();
        Ok(())
    }

    /// Removes all second factors of the user of this call.
    pub(crate) async fn disable(&self, call: &Call) -> Result<(), Error> {
        let user_id = self.authorized(call).await?;
        let told = told(call, user_id, Change::Disabled, self.clock.now())?;
        self.store.remove_factors(user_id, None, &[told], &[]).await?;
        self.relay.wake();
        Ok(())
    }

    /// Removes all second factors of a user, on behalf of an operator, and ends the sessions. Returns whether these have ended.
    pub(crate) async fn reset(&self, call: &Call, user_id: Uuid) -> Result<bool, Error> {
        let now = self.clock.now();
        let ends = FollowUp::EndSessions { user_id, except: None }.message(now)?;
        let (waits_for, told) = (ends.id, told(call, user_id, Change::Reset, now)?);
        // The sessions end also if there is no factor: an earlier call may have removed it, whose response was lost.
        self.store.remove_factors(user_id, None, &[told], &[ends]).await?;
        self.relay.wake();
        is_done(&self.relay, waits_for).await
    }

    /// The user of this call, who may change their second factors: in a session with one, if there is one.
    ///
    /// # Errors
    /// [`Error::SecondFactorRequired`] for a session of a password alone, which should have ended.
    async fn authorized(&self, call: &Call) -> Result<Uuid, Error> {
        let principal = call.principal()?;
        if !principal.has_used(Method::OneTimePassword.name()) && self.store.has_factor(principal.user_id).await? {
            return Err(Error::SecondFactorRequired);
        }
        Ok(principal.user_id)
    }

    async fn hashes(&self, call: &Call, codes: &[BackupCode]) -> Result<Vec<PasswordHash>, Error> {
        let hash = async |code: &BackupCode| {
            let (origin, deadline) = (JobOrigin::unknown(&call.fields().client), call.fields().deadline);
            self.check.hashing.hash(code.to_password(), origin, deadline).await
        };
        Ok(try_join_all(codes.iter().map(hash)).await?)
    }
}

/// The message that tells a user of a change.
pub(crate) fn told(call: &Call, user_id: Uuid, change: Change, now: Timestamp) -> Result<Message, Error> {
    let client = Origin::of(&call.fields().client, now);
    FollowUp::TellFactorChanged { user_id, change: change.name().to_owned(), client }.message(now)
}

fn new_backup_codes() -> Result<Vec<BackupCode>, Error> {
    (0..backup_code::COUNT).map(|number| BackupCode::generate(number).ok_or(Error::Random)).collect()
}
