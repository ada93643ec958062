//! Disabled accounts.

use drystone_mesh::{clock::Timestamp, time::to_micros};
use drystone_store::run;
use uuid::Uuid;

use super::{AccountRow, ActorId, Saved, UserStore, change::ChangeOf, columns, read_account};
use crate::{Account, Error, Status};

impl UserStore {
    /// Disables or enables an account. The sessions of its user end: also when it is enabled, since a sign-in that had begun before
    /// the account was disabled may have started one after the others had ended.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`], [`Error::LastAdministrator`].
    pub async fn set_status(
        &self,
        by: ActorId,
        user_id: Uuid,
        status: Status,
        now: Timestamp,
    ) -> Result<Saved<Account>, Error> {
        self.db.retry(|| self.set_status_once(by, user_id, status, now)).await
    }

    async fn set_status_once(
        &self,
        by: ActorId,
        user_id: Uuid,
        status: Status,
        now: Timestamp,
    ) -> Result<Saved<Account>, Error> {
        let mut change = self.begin_change(ChangeOf::Grants, by, now).await?;
        let user = change.existing(user_id).await?;
        change.actor.may_disable(&change.definitions, &user)?;
        let before = change.administrators().await?;
        let updated = run!(change.transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!(
                "UPDATE account
                 SET status = $2,
                     version = CASE WHEN status = $2 THEN version ELSE version + 1 END,
                     updated_at = CASE WHEN status = $2 THEN updated_at ELSE $3 END
                 WHERE id = $1
                 RETURNING ",
                columns!()
            ))
            .bind(user_id)
            .bind(status.to_column())
            .bind(to_micros(now))
            .fetch_all(connection)
            .await?
        });
        let account = updated.into_iter().next().map(read_account).ok_or(Error::NotFound)?;
        change.keep_an_administrator(before).await?;
        change.commit_and_end_sessions(user_id, account).await
    }
}
