//! Backup codes.

use drystone_mesh::{clock::Timestamp, time::to_micros};
use drystone_store::{Transaction, outbox::Message, run};
use uuid::Uuid;

use super::{AuthStore, credentials, factors, passwords::put_all};
use crate::{error::Error, password::PasswordHash};

impl AuthStore {
    /// Replaces the backup codes of a user.
    ///
    /// # Errors
    /// [`Error::NoSecondFactor`].
    pub async fn replace_backup_codes(
        &self,
        user_id: Uuid,
        codes: &[PasswordHash],
        messages: &[Message],
        now: Timestamp,
    ) -> Result<(), Error> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin_exclusive().await?;
                if factors::count(&mut transaction, user_id).await? == 0 {
                    return Err(Error::NoSecondFactor);
                }
                replace(&mut transaction, user_id, codes, now).await?;
                put_all(transaction, messages).await
            })
            .await
    }

    /// The hash of a backup code that was not used.
    pub async fn backup_code(&self, user_id: Uuid, number: u8) -> Result<Option<PasswordHash>, Error> {
        let hash: Option<String> = run!(self.db.reader(), |db| {
            sqlx::query_scalar(
                "SELECT code_hash FROM backup_code WHERE user_id = $1 AND number = $2 AND used_at IS NULL",
            )
            .bind(user_id)
            .bind(i16::from(number))
            .fetch_optional(db)
            .await?
        });
        let parse = |hash: String| hash.parse().map_err(|error| credentials::undecodable("code_hash", error).into());
        hash.map(parse).transpose()
    }

    /// How many backup codes of a user are left.
    pub async fn backup_codes_left(&self, user_id: Uuid) -> sqlx::Result<i64> {
        run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT COUNT(*) FROM backup_code WHERE user_id = $1 AND used_at IS NULL")
                .bind(user_id)
                .fetch_one(db)
                .await
        })
    }

    /// Gives a backup code back that was used up at this time, since what it was for has failed.
    pub async fn give_back(&self, user_id: Uuid, number: u8, hash: &PasswordHash, now: Timestamp) -> sqlx::Result<()> {
        run!(self.db.writer(), |db| {
            sqlx::query(
                "UPDATE backup_code
                 SET used_at = NULL
                 WHERE user_id = $1 AND number = $2 AND code_hash = $3 AND used_at = $4",
            )
            .bind(user_id)
            .bind(i16::from(number))
            .bind(hash.as_str())
            .bind(to_micros(now))
            .execute(db)
            .await?;
        });
        Ok(())
    }
}

/// Replaces the backup codes of a user in this transaction.
pub(super) async fn replace(
    transaction: &mut Transaction,
    user_id: Uuid,
    codes: &[PasswordHash],
    now: Timestamp,
) -> sqlx::Result<()> {
    for (number, hash) in (0_i16..).zip(codes) {
        run!(transaction.connection(), |connection| {
            sqlx::query(
                "INSERT INTO backup_code (user_id, number, code_hash, created_at)
                 VALUES ($1, $2, $3, $4)
                 ON CONFLICT (user_id, number) DO UPDATE SET code_hash = $3, created_at = $4, used_at = NULL",
            )
            .bind(user_id)
            .bind(number)
            .bind(hash.as_str())
            .bind(to_micros(now))
            .execute(connection)
            .await?;
        });
    }
    Ok(())
}
