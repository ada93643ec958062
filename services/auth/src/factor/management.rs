//! Users add, rename and remove their second factors.

use std::{sync::Arc, time::Duration};

use drystone_mesh::{
    call::Call,
    clock::{Clock, Timestamp},
    display_name::DisplayName,
    error::Chain,
    id,
};
use drystone_store::outbox::{Message, Relay};
use qrcode::{EcLevel, QrCode, render::svg};
use uuid::Uuid;

use super::{
    CONFIRM_TIMEOUT, Change, Factor, FactorKind, StoredFactor,
    addition::{Added, Author, new_backup_codes},
    backup_code::BackupCode,
    check::FactorCheck,
    requirement::FactorRequirement,
    totp::Secret,
};
use crate::{
    authentication::{Method, assert_strongest, with_password},
    error::Error,
    follow_up::{FollowUp, Origin},
    store::{AuthStore, factor_place},
    upstreams::{Contact, Upstreams},
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

/// The second factors of a user.
pub(crate) struct FactorList {
    /// Oldest first.
    pub(crate) factors: Vec<Factor>,
    pub(crate) backup_codes_left: i64,
    /// When all of them will be removed, if an administrator has requested that.
    pub(crate) reset_at: Option<Timestamp>,
}

/// Adds, renames, removes and resets second factors.
pub(crate) struct Factors {
    pub(crate) check: FactorCheck,
    pub(crate) upstreams: Arc<dyn Upstreams>,
    pub(crate) store: AuthStore,
    pub(crate) relay: Relay,
    pub(crate) clock: Clock,
    /// How apps name this service.
    pub(crate) issuer_name: String,
    /// Which users keep their last factor.
    pub(crate) requirement: FactorRequirement,
    /// How long a reset waits.
    pub(crate) reset_delay: Duration,
}

impl Factors {
    /// The second factors of the user of this call.
    pub(crate) async fn list(&self, call: &Call) -> Result<FactorList, Error> {
        let user_id = call.principal()?.user_id;
        let factors = self.store.confirmed_factors(user_id).await?.into_iter().map(|stored| stored.factor);
        Ok(FactorList {
            factors: factors.collect(),
            backup_codes_left: self.store.backup_codes_left(user_id).await?,
            reset_at: self.store.pending_reset(user_id).await?.map(|reset| reset.due_at),
        })
    }

    /// Begins to add an authenticator app. The address of the account has to be verified.
    ///
    /// # Errors
    /// [`Error::TooManyFactors`]; [`Error::EmailNotVerified`]; [`Error::SecondFactorRequired`].
    pub(crate) async fn begin(&self, call: &Call, display_name: DisplayName) -> Result<BegunTotp, Error> {
        let user_id = self.authorized(call).await?;
        let contact = self.verified_contact(call, user_id).await?;
        self.begin_for(&contact, display_name).await
    }

    /// Begins to add an authenticator app of this user.
    pub(super) async fn begin_for(&self, contact: &Contact, display_name: DisplayName) -> Result<BegunTotp, Error> {
        let user_id = contact.user_id;
        let (now, secret) = (self.clock.now(), Secret::generate().ok_or(Error::Random)?);
        let (id, display_name) = (id::v7_at(now), display_name.into_string());
        let sealed = self.check.sealer.seal(factor_place(&id), secret.expose()).await.map_err(Error::Seal)?;
        let kind = FactorKind::Totp;
        let factor = Factor { id, user_id, kind, display_name, created_at: now, last_used_at: None };
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
    pub(crate) async fn confirm(&self, call: &Call, factor_id: Uuid, code: &str) -> Result<Added, Error> {
        let author = self.author(call).await?;
        let added = self.confirm_by(call, &author, factor_id, code).await?;
        if author.has_second_factor {
            // It may be a stronger one.
            return Ok(added);
        }
        // The code is a proof: the next token says so. Without it, the user signs in again for what asks for two factors.
        let (user_id, session_id) = (author.user_id, call.principal()?.session_id);
        let methods = with_password(call.principal()?, Method::OneTimePassword);
        if let Err(error) = self.upstreams.raise_session(call, user_id, session_id, &methods).await {
            tracing::info!(%user_id, cause = %Chain(&error), "the session was not raised");
        }
        Ok(added)
    }

    /// Adds the authenticator app that its user has begun. In a sign-in that asks for it the code is not used up.
    pub(super) async fn confirm_by(
        &self,
        call: &Call,
        author: &Author,
        factor_id: Uuid,
        code: &str,
    ) -> Result<Added, Error> {
        let (user_id, now) = (author.user_id, self.clock.now());
        let stored = self.store.begun_factor(user_id, factor_id, now).await?.ok_or(Error::FactorNotFound)?;
        let step = self.check.step_of(&stored, code).await?.ok_or(Error::CodeInvalid)?;
        let contact = self.upstreams.contact_by_id(call, user_id).await?.ok_or(Error::SessionEnded)?;
        let addition = self.addition(call, author, &contact, now).await?;
        let (hashes, messages, auth_time) = (&addition.hashes, &addition.messages, author.auth_time);
        let step = author.session_id.map(|_| step);
        if !self.store.confirm_factor(&stored.factor, step, hashes, messages, auth_time, now).await? {
            // Another one was added or removed meanwhile.
            return Err(Error::FactorsChanged);
        }
        let factor = Factor { last_used_at: Some(now), ..stored.factor };
        Ok(self.added(addition, factor).await)
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
    /// [`Error::FactorNotFound`]; [`Error::LastFactor`].
    pub(crate) async fn remove(&self, call: &Call, id: Uuid) -> Result<(), Error> {
        let user_id = self.authorized(call).await?;
        let told = [told(call, user_id, Change::Removed, self.clock.now())?];
        let is_removed = if self.requirement.applies(&call.principal()?.roles) {
            self.store.remove_factor_but_last(user_id, id, &told).await?
        } else {
            self.store.remove_factors(user_id, Some(id), &told, &[]).await?
        };
        if !is_removed {
            return Err(Error::FactorNotFound);
        }
        self.relay.wake();
        Ok(())
    }

    /// Removes all second factors of the user of this call.
    pub(crate) async fn disable(&self, call: &Call) -> Result<(), Error> {
        let user_id = self.authorized(call).await?;
        if self.requirement.applies(&call.principal()?.roles) {
            return Err(Error::LastFactor);
        }
        let told = told(call, user_id, Change::Disabled, self.clock.now())?;
        self.store.remove_factors(user_id, None, &[told], &[]).await?;
        self.relay.wake();
        Ok(())
    }

    /// The user of this call, who may change their second factors: in a session with one, if there is one.
    ///
    /// # Errors
    /// [`Error::SecondFactorRequired`] for a session of a password alone, which should have ended.
    pub(super) async fn authorized(&self, call: &Call) -> Result<Uuid, Error> {
        let principal = call.principal()?;
        assert_strongest(principal, &self.store).await?;
        Ok(principal.user_id)
    }

    /// The contact of the user of this call, whose address has to be verified: nobody keeps the owner of an address out of an account that
    /// they have registered with it.
    pub(super) async fn verified_contact(&self, call: &Call, user_id: Uuid) -> Result<Contact, Error> {
        let contact = self.upstreams.contact_by_id(call, user_id).await?.ok_or(Error::SessionEnded)?;
        if contact.email_verified { Ok(contact) } else { Err(Error::EmailNotVerified) }
    }
}

/// The message that tells a user of a change.
pub(crate) fn told(call: &Call, user_id: Uuid, change: Change, now: Timestamp) -> Result<Message, Error> {
    let client = Origin::of(&call.fields().client, now);
    FollowUp::TellFactorChanged { user_id, change: change.name().to_owned(), client }.message(now)
}
