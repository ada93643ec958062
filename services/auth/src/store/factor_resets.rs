//! Resets of second factors that wait.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{Transaction, outbox::Message, run};
use uuid::Uuid;

use super::{AuthStore, factors::forget_user, passwords::put_all};
use crate::{error::Error, factor::FactorReset};

impl AuthStore {
    /// Stores a reset with the messages about it, unless one of the same user waits already. Returns when the one that waits is due, or
    /// `None` without a change if the user has no second factor.
    pub async fn request_reset(&self, new: &FactorReset, messages: &[Message]) -> Result<Option<Timestamp>, Error> {
        self.db
            .retry(|| async {
                // Exclusive, so that the last factor is not removed meanwhile: the reset would concern those that are added later.
                let mut transaction = self.db.begin_exclusive().await?;
                let inserted = run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "INSERT INTO factor_reset (user_id, requested_by, due_at, created_at)
                         SELECT $1, $2, $3, $4
                         WHERE EXISTS (SELECT 1 FROM factor WHERE user_id = $1 AND confirmed_at IS NOT NULL)
                         ON CONFLICT (user_id) DO NOTHING",
                    )
                    .bind(new.user_id)
                    .bind(new.requested_by)
                    .bind(to_micros(new.due_at))
                    .bind(to_micros(new.created_at))
                    .execute(connection)
                    .await?
                    .rows_affected()
                });
                if inserted == 1 {
                    put_all(transaction, messages).await?;
                    return Ok(Some(new.due_at));
                }
                let due_at: Option<i64> = run!(transaction.connection(), |connection| {
                    sqlx::query_scalar("SELECT due_at FROM factor_reset WHERE user_id = $1")
                        .bind(new.user_id)
                        .fetch_optional(connection)
                        .await?
                });
                Ok(due_at.map(from_micros))
            })
            .await
    }

    /// The reset of a user that waits.
    pub async fn pending_reset(&self, user_id: Uuid) -> sqlx::Result<Option<FactorReset>> {
        let row: Option<(Option<Uuid>, i64, i64)> = run!(self.db.reader(), |db| {
            sqlx::query_as("SELECT requested_by, due_at, created_at FROM factor_reset WHERE user_id = $1")
                .bind(user_id)
                .fetch_optional(db)
                .await?
        });
        Ok(row.map(|(requested_by, due_at, created_at)| FactorReset {
            user_id,
            requested_by,
            due_at: from_micros(due_at),
            created_at: from_micros(created_at),
        }))
    }

    /// Cancels the reset of a user that waits, and stores the messages if there was one. Returns whether there was.
    pub async fn cancel_reset(&self, user_id: Uuid, messages: &[Message]) -> Result<bool, Error> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                let was_pending = cancel(&mut transaction, user_id).await?;
                put_all(transaction, if was_pending { messages } else { &[] }).await?;
                Ok(was_pending)
            })
            .await
    }

    /// The users of at most `limit` resets that are due, the longest due first.
    pub async fn due_resets(&self, now: Timestamp, limit: u32) -> sqlx::Result<Vec<Uuid>> {
        run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT user_id FROM factor_reset WHERE due_at <= $1 ORDER BY due_at LIMIT $2")
                .bind(to_micros(now))
                .bind(i64::from(limit))
                .fetch_all(db)
                .await
        })
    }

    /// Removes the second factors of a user whose reset is due, and stores the messages. Returns false without a change if none is:
    /// it was cancelled, or another instance was faster.
    pub async fn carry_out_reset(&self, user_id: Uuid, messages: &[Message], now: Timestamp) -> Result<bool, Error> {
        self.db
            .retry(|| async {
                // Exclusive, as all that removes or adds factors.
                let mut transaction = self.db.begin_exclusive().await?;
                let was_due = run!(transaction.connection(), |connection| {
                    sqlx::query("DELETE FROM factor_reset WHERE user_id = $1 AND due_at <= $2")
                        .bind(user_id)
                        .bind(to_micros(now))
                        .execute(connection)
                        .await?
                        .rows_affected()
                });
                if was_due == 0 {
                    return Ok(false);
                }
                forget_user(&mut transaction, user_id).await?;
                put_all(transaction, messages).await?;
                Ok(true)
            })
            .await
    }
}

/// Cancels the reset of a user that waits, in this transaction. Returns whether there was one.
pub(super) async fn cancel(transaction: &mut Transaction, user_id: Uuid) -> sqlx::Result<bool> {
    let cancelled = run!(transaction.connection(), |connection| {
        sqlx::query("DELETE FROM factor_reset WHERE user_id = $1")
            .bind(user_id)
            .execute(connection)
            .await?
            .rows_affected()
    });
    Ok(cancelled == 1)
}
