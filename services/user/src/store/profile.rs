//! Profiles: how they are stored and changed.

use std::collections::BTreeMap;

use drystone_mesh::{clock::Timestamp, time::to_micros};
use drystone_store::{Transaction, run};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    ActorId, UserStore,
    accounts::{self, AccountRow, columns, read_account},
    words::{self, AccountWords},
};
use crate::{Account, DisplayName, Error, Profile, ProfileChange, Status, account::TelegramId};

/// How often a change is tried again if another one came between its read and its write.
const MAX_ATTEMPTS: u32 = 5;

/// A profile without the display name, as it is stored. Fields that a later release has written are kept by it alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StoredProfile {
    #[serde(skip_serializing_if = "String::is_empty")]
    given_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    family_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    phone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    locale: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    time_zone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    avatar: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    preferences: BTreeMap<String, String>,
}

impl From<&Profile> for StoredProfile {
    fn from(profile: &Profile) -> Self {
        let Profile { display_name: _, given_name, family_name, phone, locale, time_zone, avatar, preferences } =
            profile.clone();
        Self { given_name, family_name, phone, locale, time_zone, avatar, preferences }
    }
}

impl StoredProfile {
    pub(super) fn into_profile(self, display_name: DisplayName) -> Profile {
        let Self { given_name, family_name, phone, locale, time_zone, avatar, preferences } = self;
        Profile { display_name, given_name, family_name, phone, locale, time_zone, avatar, preferences }
    }
}

impl UserStore {
    /// Changes the profile of an account, if it is at this version. If nothing changes, the version does not. `by` may change their
    /// own; others with the rights of an administrator, which are read in the transaction of the change.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`], [`Error::Deleted`]; [`Error::Stale`] if the account is at another version, or is
    /// changed all the time.
    pub async fn update_profile(
        &self,
        by: ActorId,
        id: Uuid,
        change: &ProfileChange,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Account, Error> {
        for _ in 0..MAX_ATTEMPTS {
            let updated = self.db.retry(|| self.update_profile_once(by, id, change, version, now)).await?;
            if let Some(account) = updated {
                return Ok(account);
            }
        }
        Err(Error::Stale)
    }

    /// Links an account to a Telegram user, or ends the link.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`], [`Error::Deleted`], [`Error::TelegramIdTaken`].
    pub async fn set_telegram_id(
        &self,
        by: ActorId,
        id: Uuid,
        telegram_id: Option<TelegramId>,
        now: Timestamp,
    ) -> Result<Account, Error> {
        self.db.retry(|| self.set_telegram_id_once(by, id, telegram_id, now)).await
    }

    /// `None` if another change came between.
    async fn update_profile_once(
        &self,
        by: ActorId,
        id: Uuid,
        change: &ProfileChange,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Account>, Error> {
        let mut transaction = self.begin_for_account(by, id, now).await?;
        let old = accounts::find(&mut transaction, id).await?.ok_or(Error::NotFound)?;
        if version.is_some_and(|version| version != old.version) {
            return Err(Error::Stale);
        }
        if old.status == Status::Deleted {
            return Err(Error::Deleted);
        }
        let profile = old.profile.clone().with(change.clone());
        if profile == old.profile {
            return Ok(Some(old));
        }
        let updated = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!(
                "UPDATE account
                 SET display_name = $2, profile = $3, version = version + 1, updated_at = $4
                 WHERE id = $1 AND version = $5
                 RETURNING ",
                columns!()
            ))
            .bind(id)
            .bind(profile.display_name.as_str())
            .bind(Json(StoredProfile::from(&profile)))
            .bind(to_micros(now))
            .bind(old.version)
            .fetch_optional(connection)
            .await?
        });
        let Some(account) = updated.map(read_account) else { return Ok(None) };
        let words = AccountWords::of(&account);
        if words.words != AccountWords::of(&old).words {
            words::replace(&mut transaction, words).await?;
        }
        transaction.commit().await?;
        Ok(Some(account))
    }

    async fn set_telegram_id_once(
        &self,
        by: ActorId,
        id: Uuid,
        telegram_id: Option<TelegramId>,
        now: Timestamp,
    ) -> Result<Account, Error> {
        let mut transaction = self.begin_for_account(by, id, now).await?;
        let old = accounts::find(&mut transaction, id).await?.ok_or(Error::NotFound)?;
        if old.status == Status::Deleted {
            return Err(Error::Deleted);
        }
        if old.telegram_id == telegram_id {
            return Ok(old);
        }
        let updated = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!(
                "UPDATE account
                 SET telegram_id = $2, version = version + 1, updated_at = $3
                 WHERE id = $1
                 RETURNING ",
                columns!()
            ))
            .bind(id)
            .bind(telegram_id.map(TelegramId::get))
            .bind(to_micros(now))
            .fetch_optional(connection)
            .await
        });
        let updated = updated.map_err(|error| {
            let is_taken = error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
            if is_taken { Error::TelegramIdTaken } else { Error::Store(error) }
        })?;
        let account = updated.map(read_account).ok_or(Error::NotFound)?;
        transaction.commit().await?;
        Ok(account)
    }

    /// The transaction of a change of an account that concerns neither its roles nor its status: for the account of another user in
    /// the order of changes of roles, with the check of the actor.
    async fn begin_for_account(&self, by: ActorId, id: Uuid, now: Timestamp) -> Result<Transaction, Error> {
        if by == ActorId::User(id) || by == ActorId::Operator {
            return Ok(self.db.begin().await?);
        }
        Ok(self.begin_managing(by, id, now).await?.transaction)
    }
}
