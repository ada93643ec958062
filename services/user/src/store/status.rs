//! Disabled and deleted accounts.

use std::time::Duration;

use drystone_mesh::{clock::Timestamp, time::to_micros};
use drystone_store::{outbox, run};
use uuid::Uuid;

use super::{
    ActorId, Saved, UserStore,
    accounts::{self, AccountRow, columns, read_account},
    change::{Change, ChangeOf},
};
use crate::{Account, Error, Status, follow_up};

/// How many accounts a sweep removes at once.
const PURGE_BATCH: i64 = 100;

impl UserStore {
    /// Disables or enables an account. The sessions of its user end: also when it is enabled, since a sign-in that had begun before
    /// the account was disabled may have started one after the others had ended.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`], [`Error::Deleted`], [`Error::LastAdministrator`].
    pub async fn set_disabled(
        &self,
        by: ActorId,
        user_id: Uuid,
        is_disabled: bool,
        now: Timestamp,
    ) -> Result<Saved<Account>, Error> {
        self.db.retry(|| self.set_disabled_once(by, user_id, is_disabled, now)).await
    }

    /// Deletes an account, if it is at this version: it can be restored for `retention`. The sessions of its user end.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`], [`Error::Stale`], [`Error::LastAdministrator`].
    pub async fn delete(
        &self,
        by: ActorId,
        user_id: Uuid,
        version: Option<i64>,
        retention: Duration,
        now: Timestamp,
    ) -> Result<Saved<Account>, Error> {
        self.db.retry(|| self.delete_once(by, user_id, version, retention, now)).await
    }

    /// Restores a deleted account, with the status that it had.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`].
    pub async fn undelete(&self, by: ActorId, user_id: Uuid, now: Timestamp) -> Result<Saved<Account>, Error> {
        self.db.retry(|| self.undelete_once(by, user_id, now)).await
    }

    /// Removes a deleted account for good. What other services have of its user is removed by messages in the outbox. Returns whether
    /// there was one.
    ///
    /// # Errors
    /// [`Error::NotDeleted`], [`Error::Refused`].
    pub async fn purge(&self, by: ActorId, user_id: Uuid, now: Timestamp) -> Result<bool, Error> {
        self.db.retry(|| self.purge_once(by, user_id, now)).await
    }

    /// Removes the accounts whose purge time has come. Returns how many.
    pub async fn purge_due(&self, now: Timestamp) -> Result<usize, Error> {
        let mut total = 0;
        loop {
            let due = run!(self.db.reader(), |db| {
                sqlx::query_scalar::<_, Uuid>(
                    "SELECT id
                     FROM account
                     WHERE purge_at <= $1 AND status = 3
                     ORDER BY purge_at
                     LIMIT $2",
                )
                .bind(to_micros(now))
                .bind(PURGE_BATCH)
                .fetch_all(db)
                .await?
            });
            let mut purged = 0;
            for user_id in &due {
                match self.purge(ActorId::Operator, *user_id, now).await {
                    Ok(was_removed) => purged += usize::from(was_removed),
                    // Restored meanwhile.
                    Err(Error::NotDeleted) => {}
                    Err(error) => return Err(error),
                }
            }
            total += purged;
            if purged == 0 || i64::try_from(due.len()).is_ok_and(|due| due < PURGE_BATCH) {
                return Ok(total);
            }
        }
    }

    /// Forgets the ids of accounts that were removed before this time.
    pub async fn forget_purged(&self, before: Timestamp) -> Result<(), Error> {
        run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM purged_account WHERE purged_at < $1").bind(to_micros(before)).execute(db).await?;
        });
        Ok(())
    }
}

/// Transactions that may be retried as a whole.
impl UserStore {
    async fn set_disabled_once(
        &self,
        by: ActorId,
        user_id: Uuid,
        is_disabled: bool,
        now: Timestamp,
    ) -> Result<Saved<Account>, Error> {
        let mut change = self.begin_managing(by, user_id, now).await?;
        let status = if is_disabled { Status::Disabled } else { Status::Active };
        let before = change.administrators().await?;
        let updated = run!(change.transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!(
                "UPDATE account
                 SET status = $2,
                     version = CASE WHEN status = $2 THEN version ELSE version + 1 END,
                     updated_at = CASE WHEN status = $2 THEN updated_at ELSE $3 END
                 WHERE id = $1 AND status <> 3
                 RETURNING ",
                columns!()
            ))
            .bind(user_id)
            .bind(status.to_column())
            .bind(to_micros(now))
            .fetch_all(connection)
            .await?
        });
        let account = updated.into_iter().next().map(read_account).ok_or(Error::Deleted)?;
        change.keep_an_administrator(before).await?;
        change.commit_and_end_sessions(user_id, account).await
    }

    async fn delete_once(
        &self,
        by: ActorId,
        user_id: Uuid,
        version: Option<i64>,
        retention: Duration,
        now: Timestamp,
    ) -> Result<Saved<Account>, Error> {
        let mut change = self.begin_managing(by, user_id, now).await?;
        let before = change.administrators().await?;
        let updated = run!(change.transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!(
                "UPDATE account
                 SET status = 3,
                     status_before = status,
                     deleted_at = $2,
                     purge_at = $3,
                     version = version + 1,
                     updated_at = $2
                 WHERE id = $1 AND status <> 3 AND version = COALESCE($4, version)
                 RETURNING ",
                columns!()
            ))
            .bind(user_id)
            .bind(to_micros(now))
            .bind(to_micros(now + retention))
            .bind(version)
            .fetch_all(connection)
            .await?
        });
        let account = if let Some(row) = updated.into_iter().next() {
            read_account(row)
        } else {
            let account = accounts::find(&mut change.transaction, user_id).await?.ok_or(Error::NotFound)?;
            if account.status != Status::Deleted {
                return Err(Error::Stale);
            }
            account
        };
        change.keep_an_administrator(before).await?;
        change.commit_and_end_sessions(user_id, account).await
    }

    async fn undelete_once(&self, by: ActorId, user_id: Uuid, now: Timestamp) -> Result<Saved<Account>, Error> {
        let mut change = self.begin_managing(by, user_id, now).await?;
        let updated = run!(change.transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!(
                "UPDATE account
                 SET status = COALESCE(status_before, 2),
                     status_before = NULL,
                     deleted_at = NULL,
                     purge_at = NULL,
                     version = version + 1,
                     updated_at = $2
                 WHERE id = $1 AND status = 3
                 RETURNING ",
                columns!()
            ))
            .bind(user_id)
            .bind(to_micros(now))
            .fetch_all(connection)
            .await?
        });
        if let Some(row) = updated.into_iter().next() {
            return change.commit_and_end_sessions(user_id, read_account(row)).await;
        }
        let account = accounts::find(&mut change.transaction, user_id).await?.ok_or(Error::NotFound)?;
        Ok(Saved { value: account, voiding: None })
    }

    async fn purge_once(&self, by: ActorId, user_id: Uuid, now: Timestamp) -> Result<bool, Error> {
        let mut change = match self.begin_managing(by, user_id, now).await {
            Err(Error::NotFound) => return Ok(false),
            begun => begun?,
        };
        let removed = run!(change.transaction.connection(), |connection| {
            sqlx::query("DELETE FROM account WHERE id = $1 AND status = 3")
                .bind(user_id)
                .execute(connection)
                .await?
                .rows_affected()
        });
        if removed == 0 {
            return Err(Error::NotDeleted);
        }
        run!(change.transaction.connection(), |connection| {
            sqlx::query("INSERT INTO purged_account (id, purged_at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(user_id)
                .bind(to_micros(now))
                .execute(connection)
                .await?;
        });
        for message in follow_up::of_purge(user_id, now) {
            outbox::put(&mut change.transaction, &message).await?;
        }
        change.transaction.commit().await?;
        Ok(true)
    }

    /// Begins a change of the account of a user whom the actor may manage.
    pub(super) async fn begin_managing(&self, by: ActorId, user_id: Uuid, now: Timestamp) -> Result<Change, Error> {
        let mut change = self.begin_change(ChangeOf::Grants, by, now).await?;
        let user = change.subject(user_id).await?.ok_or(Error::NotFound)?;
        change.actor.may_manage(&change.definitions, &user)?;
        Ok(change)
    }
}
