//! Revocations of tokens apart from their sessions.

use drystone_mesh::{clock::Timestamp, time::to_micros};
use drystone_store::run;
use uuid::Uuid;

use super::{SqlStore, row::from_column};
use crate::{
    revocation::{Holder, KEY_RETENTION},
    session::Lifetimes,
    store::StoreError,
};

impl SqlStore {
    /// In one transaction: a role may have many that inherit it, and each commit is synced to disk.
    pub(super) async fn void_tokens_once(
        &self,
        of: &[Holder],
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let (mut transaction, mut last) = (self.db.begin().await?, 0);
        for (user_id, role) in of.iter().map(Holder::to_columns) {
            let mut seq: Vec<i64> = run!(transaction.connection(), |connection| {
                sqlx::query_scalar(
                    "INSERT INTO revocation (user_id, void_until, forget_at, role)
                     VALUES ($1, $2, $3, $4)
                     RETURNING seq",
                )
                .bind(user_id)
                .bind(to_micros(now))
                .bind(to_micros(lifetimes.forget_at(now)))
                .bind(role)
                .fetch_all(connection)
                .await?
            });
            last = from_column(seq.pop().ok_or(sqlx::Error::RowNotFound)?);
        }
        transaction.commit().await?;
        Ok(last)
    }

    pub(super) async fn void_key_once(&self, key_id: &str, now: Timestamp) -> Result<u64, StoreError> {
        let mut transaction = self.db.begin().await?;
        // With the nil user, as for a role: a release that does not know keys reads a revocation of nobody's tokens.
        let mut seq: Vec<i64> = run!(transaction.connection(), |connection| {
            sqlx::query_scalar(
                "INSERT INTO revocation (user_id, void_until, forget_at, key_id)
                 VALUES ($1, $2, $3, $4)
                 RETURNING seq",
            )
            .bind(Uuid::nil())
            .bind(to_micros(now))
            .bind(to_micros(now + KEY_RETENTION))
            .bind(key_id)
            .fetch_all(connection)
            .await?
        });
        let seq = from_column(seq.pop().ok_or(sqlx::Error::RowNotFound)?);
        transaction.commit().await?;
        Ok(seq)
    }
}
