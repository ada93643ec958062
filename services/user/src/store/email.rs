//! The e-mail addresses of accounts: that they are verified, and how they change.

use std::collections::HashSet;

use drystone_mesh::{clock::Timestamp, time::to_micros};
use drystone_store::{Transaction, places, run};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{
    UserStore,
    accounts::{self, AccountRow, columns, read_account},
    words::{self, AccountWords},
};
use crate::{Account, Email, Error, Status};

/// A verified e-mail address for an account.
#[derive(Debug, Clone)]
pub struct EmailChange {
    /// The account.
    pub user_id: Uuid,
    /// The address.
    pub email: Email,
    /// The address that the account has until now; `None`: any.
    pub current: Option<Email>,
    /// Until when the account can get back the address that it has until now.
    pub keep_until: Option<Timestamp>,
}

impl UserStore {
    /// Gives an account a verified address. Idempotent.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Deleted`], [`Error::EmailTaken`]; [`Error::Stale`] if the account has another address than the
    /// change expects.
    pub async fn set_email(&self, change: &EmailChange, now: Timestamp) -> Result<Account, Error> {
        self.db.retry(|| self.set_email_once(change, now)).await
    }

    /// Forgets addresses that are no longer kept. Returns how many.
    pub async fn forget_kept_emails(&self, now: Timestamp) -> Result<u64, Error> {
        Ok(run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM kept_email WHERE until <= $1")
                .bind(to_micros(now))
                .execute(db)
                .await?
                .rows_affected()
        }))
    }

    async fn set_email_once(&self, change: &EmailChange, now: Timestamp) -> Result<Account, Error> {
        let mut transaction = self.db.begin().await?;
        let old = accounts::find(&mut transaction, change.user_id).await?.ok_or(Error::NotFound)?;
        if old.status == Status::Deleted {
            return Err(Error::Deleted);
        }
        let (key, old_key) = (change.email.key(), old.email.key());
        let is_expected = change.current.as_ref().is_none_or(|current| current.key() == old_key);
        if key != old_key && !is_expected {
            return Err(Error::Stale);
        }
        if old.email == change.email && old.email_verified_at.is_some() {
            return Ok(old);
        }
        let updated = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!(
                "UPDATE account
                 SET email = $2, email_key = $3, email_verified_at = $4, version = version + 1, updated_at = $4
                 WHERE id = $1 AND version = $5
                 RETURNING ",
                columns!()
            ))
            .bind(change.user_id)
            .bind(change.email.as_str())
            .bind(key.as_str())
            .bind(to_micros(now))
            .bind(old.version)
            .fetch_optional(connection)
            .await
        });
        let updated = updated.map_err(|error| {
            let is_taken = error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
            if is_taken { Error::EmailTaken } else { Error::Store(error) }
        })?;
        let account = updated.map(read_account).ok_or(Error::Stale)?;
        if key != old_key {
            refuse_kept(&mut transaction, change.user_id, &key, now).await?;
            keep(&mut transaction, change, &old_key).await?;
            words::replace(&mut transaction, AccountWords::of(&account)).await?;
        }
        transaction.commit().await?;
        Ok(account)
    }
}

/// Refuses an address that another account had before, and keeps. To be called after the row with the address is written, so that none
/// is missed that becomes kept at this moment.
pub(super) async fn refuse_kept(
    transaction: &mut Transaction,
    user_id: Uuid,
    key: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let kept = kept(transaction, &[key.to_owned()], now).await?;
    if kept.iter().all(|(_, owner)| *owner == user_id) { Ok(()) } else { Err(Error::EmailTaken) }
}

/// Which of these addresses are kept, and for whom.
pub(super) async fn kept(
    transaction: &mut Transaction,
    keys: &[String],
    now: Timestamp,
) -> Result<HashSet<(String, Uuid)>, Error> {
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let places = places(2, keys.len());
    let sql = format!("SELECT email_key, user_id FROM kept_email WHERE until > $1 AND email_key IN ({places})");
    let rows = run!(transaction.connection(), |connection| {
        let mut query = sqlx::query_as::<_, (String, Uuid)>(AssertSqlSafe(sql)).bind(to_micros(now));
        for key in keys {
            query = query.bind(key.as_str());
        }
        query.fetch_all(connection).await?
    });
    Ok(rows.into_iter().collect())
}

/// Keeps the address from before the change, and no longer the one that the account has now.
async fn keep(transaction: &mut Transaction, change: &EmailChange, old_key: &str) -> Result<(), Error> {
    run!(transaction.connection(), |connection| {
        sqlx::query("DELETE FROM kept_email WHERE user_id = $1 AND email_key = $2")
            .bind(change.user_id)
            .bind(change.email.key())
            .execute(connection)
            .await?;
    });
    let Some(until) = change.keep_until else { return Ok(()) };
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "INSERT INTO kept_email (email_key, user_id, until)
             VALUES ($1, $2, $3)
             ON CONFLICT (email_key) DO UPDATE SET user_id = $2, until = $3",
        )
        .bind(old_key)
        .bind(change.user_id)
        .bind(to_micros(until))
        .execute(connection)
        .await?;
    });
    Ok(())
}
