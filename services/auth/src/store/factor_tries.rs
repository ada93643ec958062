//! Tries of codes of second factors.

use std::time::Duration;

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{Transaction, run};
use uuid::Uuid;

use super::AuthStore;
use crate::{error::Error, factor::tries::Tries};

/// How often a count is repeated that others have changed meanwhile.
const MAX_COUNTS: usize = 20;

impl AuthStore {
    /// Counts a try of a code, from a known device or a session, or nil for all others, before the code is checked.
    ///
    /// # Errors
    /// [`Error::TooManyTries`].
    pub async fn count_try(&self, user_id: Uuid, origin: Uuid, now: Timestamp) -> Result<(), Error> {
        for _ in 0..MAX_COUNTS {
            let row: Option<(i32, i64)> = run!(self.db.reader(), |db| {
                sqlx::query_as("SELECT failures, allowed_at FROM factor_attempt WHERE user_id = $1 AND origin = $2")
                    .bind(user_id)
                    .bind(origin)
                    .fetch_optional(db)
                    .await?
            });
            let before = row.map(|(failures, allowed_at)| Tries {
                failures: failures.unsigned_abs(),
                allowed_at: from_micros(allowed_at),
            });
            let next = Tries::next(before, now).map_err(Error::TooManyTries)?;
            let counted = run!(self.db.writer(), |db| {
                sqlx::query(
                    "INSERT INTO factor_attempt (user_id, origin, failures, allowed_at)
                     VALUES ($1, $2, $3, $4)
                     ON CONFLICT (user_id, origin) DO UPDATE
                     SET failures = $3, allowed_at = $4
                     WHERE factor_attempt.failures = $5 AND factor_attempt.allowed_at = $6",
                )
                .bind(user_id)
                .bind(origin)
                .bind(to_column(next.failures))
                .bind(to_micros(next.allowed_at))
                .bind(row.map_or(-1, |(failures, _)| failures))
                .bind(row.map_or(-1, |(_, allowed_at)| allowed_at))
                .execute(db)
                .await?
                .rows_affected()
            });
            if counted == 1 {
                return Ok(());
            }
        }
        Err(Error::TooManyTries(Duration::from_secs(1)))
    }

    /// Takes back a try whose code was not refused: something else failed.
    pub async fn uncount_try(&self, user_id: Uuid, origin: Uuid, now: Timestamp) -> sqlx::Result<()> {
        run!(self.db.writer(), |db| {
            sqlx::query(
                "UPDATE factor_attempt
                 SET failures = failures - 1, allowed_at = $3
                 WHERE user_id = $1 AND origin = $2 AND failures > 0",
            )
            .bind(user_id)
            .bind(origin)
            .bind(to_micros(now))
            .execute(db)
            .await?;
        });
        Ok(())
    }
}

/// Clears the tries of an origin in this transaction.
pub(super) async fn clear_tries(transaction: &mut Transaction, user_id: Uuid, origin: Uuid) -> Result<(), Error> {
    run!(transaction.connection(), |connection| {
        sqlx::query("DELETE FROM factor_attempt WHERE user_id = $1 AND origin = $2")
            .bind(user_id)
            .bind(origin)
            .execute(connection)
            .await?;
    });
    Ok(())
}

fn to_column(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
