//! A transaction on either engine.

use sqlx::{PgConnection, Sqlite, SqliteConnection};

use super::{Either, postgres::PostgresTransaction};

/// A transaction that may write. It is rolled back when it is dropped without [`Transaction::commit`].
#[derive(Debug)]
pub struct Transaction(pub(super) Either<sqlx::Transaction<'static, Sqlite>, PostgresTransaction>);

impl Transaction {
    /// The executor for its statements, for [`run!`](super::run).
    pub fn connection(&mut self) -> Either<&mut SqliteConnection, &mut PgConnection> {
        match &mut self.0 {
            Either::Sqlite(transaction) => Either::Sqlite(&mut *transaction),
            Either::Postgres(transaction) => Either::Postgres(&mut *transaction.inner),
        }
    }

    /// Commits the transaction.
    pub async fn commit(self) -> sqlx::Result<()> {
        match self.0 {
            Either::Sqlite(transaction) => transaction.commit().await,
            Either::Postgres(transaction) => transaction.inner.commit().await,
        }
    }
}
