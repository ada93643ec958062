//! One service's database, on either engine.

use std::{error::Error as StdError, time::Duration};

use drystone_mesh::backoff::Backoff;
use sqlx::SqlitePool;

use super::{
    Failure, Location, Migration, OpenError, Transaction, failure, migration, postgres,
    postgres::{Postgres, PostgresPool},
    sqlite::{self, Sqlite},
};

/// How often a transaction is retried that failed with a conflict.
const MAX_RETRIES: u32 = 5;

/// The bounds of the backoff between retries.
const MIN_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(200);

/// One of two: what there is of SQLite, or what there is of PostgreSQL.
#[derive(Debug, Clone)]
pub enum Either<S, P> {
    /// Of SQLite.
    Sqlite(S),
    /// Of PostgreSQL.
    Postgres(P),
}

/// Does the same on either engine, each statement bound natively.
///
/// `$on` is what statements run on: [`Db::reader`], [`Db::writer`] or [`Transaction::connection`]. The body is compiled
/// once for each engine.
///
/// ```
/// # use drystone_store::{Db, run};
/// # async fn example(db: &Db) -> sqlx::Result<()> {
/// let notes: i64 = run!(db.reader(), |db| sqlx::query_scalar("SELECT COUNT(*) FROM note").fetch_one(db).await?);
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! run {
    ($on:expr, |$executor:ident| $body:expr) => {
        match $on {
            $crate::Either::Sqlite($executor) => $body,
            $crate::Either::Postgres($executor) => $body,
        }
    };
}

/// A database. Clones share its connections.
///
/// A caller with an open transaction must write through that transaction alone: on SQLite, which has one writer, a second
/// one would wait for the first.
///
/// On PostgreSQL transactions are `READ COMMITTED`: each statement sees what was committed before it, and a statement
/// that meets a row which another transaction is changing waits for that one and then looks at the row again. On SQLite
/// transactions come one after the other. SQL has to be right on both: what was read is written only where a condition
/// of the writing statement says that it is still so.
#[derive(Debug, Clone)]
pub struct Db(Either<Sqlite, Postgres>);

impl Db {
    /// Opens a database and brings its schema up to date. A file is created if need be, and its directory too, readable
    /// by its owner alone.
    ///
    /// # Errors
    /// A sentence that names the database and says what to do: see [`OpenError`].
    pub async fn open(place: impl Into<Location>, migrations: &'static [Migration]) -> Result<Self, OpenError> {
        Ok(Self(match place.into() {
            Location::File(path) => Either::Sqlite(sqlite::open(&path, migrations).await?),
            Location::Server(server) => Either::Postgres(postgres::open(server, migrations).await?),
        }))
    }

    /// What to read on. SQLite refuses to write there.
    #[must_use]
    pub fn reader(&self) -> Either<&SqlitePool, PostgresPool> {
        match &self.0 {
            Either::Sqlite(sqlite) => Either::Sqlite(&sqlite.readers),
            Either::Postgres(postgres) => Either::Postgres(postgres.pool()),
        }
    }

    /// What to write on, a single statement. More than one belong in [`Db::begin`].
    ///
    /// A statement with `RETURNING` is to be read with `fetch_all`: `fetch_one` and `fetch_optional` stop at the first
    /// row, and then sqlx drops the error of a commit that fails, on a full disk for one.
    #[must_use]
    pub fn writer(&self) -> Either<&SqlitePool, PostgresPool> {
        match &self.0 {
            Either::Sqlite(sqlite) => Either::Sqlite(&sqlite.writer),
            Either::Postgres(postgres) => Either::Postgres(postgres.pool()),
        }
    }

    /// Begins a transaction that may write. It is rolled back when it is dropped without `commit`.
    pub async fn begin(&self) -> sqlx::Result<Transaction> {
        Ok(Transaction(match &self.0 {
            // Taking the lock at once means that what is read inside is still so when it is written.
            Either::Sqlite(sqlite) => Either::Sqlite(sqlite.writer.begin_with("BEGIN IMMEDIATE").await?),
            Either::Postgres(postgres) => Either::Postgres(postgres.pool().begin().await?),
        }))
    }

    /// Begins a transaction that excludes every other one of this kind, in all processes: for what no condition of
    /// a statement can guard. On SQLite every transaction is of this kind.
    pub async fn begin_exclusive(&self) -> sqlx::Result<Transaction> {
        let mut transaction = self.begin().await?;
        if let Either::Postgres(connection) = transaction.connection() {
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('drystone alone ' || current_schema(), 0))")
                .execute(connection)
                .await?;
        }
        Ok(transaction)
    }

    /// Runs a whole transaction, and retries it after a conflict with another one: a serialization failure or a deadlock,
    /// which PostgreSQL ends by rolling back. Nothing of it has been done then, and it must have had no effect but
    /// those in the database.
    ///
    /// A lost connection is not retried: whether the transaction was committed is not known.
    pub async fn retry<T, E, F>(&self, transaction: impl Fn() -> F + Send) -> Result<T, E>
    where
        E: StdError + Send + 'static,
        F: Future<Output = Result<T, E>> + Send,
    {
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        for _ in 0..MAX_RETRIES {
            match transaction().await {
                Err(error) if failure::among_sources(&error) == Some(Failure::Conflict) => {
                    tracing::debug!(cause = %error, "transaction failed with a conflict, retried");
                }
                outcome => return outcome,
            }
            // Two that conflicted must not meet again in step.
            tokio::time::sleep(backoff.failed()).await;
        }
        transaction().await
    }

    /// Proves that the database answers.
    pub async fn ping(&self) -> sqlx::Result<()> {
        match &self.0 {
            Either::Sqlite(sqlite) => migration::version_in_file(&sqlite.readers).await.map(drop),
            Either::Postgres(postgres) => postgres.ping().await,
        }
    }

    /// Closes all connections, after the work that is under way.
    pub async fn close(&self) {
        match &self.0 {
            Either::Sqlite(sqlite) => sqlite.close().await,
            Either::Postgres(postgres) => postgres.pool().close().await,
        }
    }
}
