//! The database of a service, on SQLite or PostgreSQL.

use std::{error::Error as StdError, time::Duration};

use drystone_mesh::backoff::Backoff;
use sqlx::SqlitePool;

use super::{
    Failure, Location, Migration, OpenError, Transaction, failure, migration, postgres,
    postgres::{PostgresDb, PostgresPool},
    sqlite::{self, SqliteDb},
};

/// How many times a transaction is retried after a conflict.
const MAX_RETRIES: u32 = 5;

/// The bounds of the backoff between retries.
const MIN_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(200);

/// A value for SQLite or for PostgreSQL.
#[derive(Debug, Clone)]
pub enum Either<S, P> {
    /// For SQLite.
    Sqlite(S),
    /// For PostgreSQL.
    Postgres(P),
}

/// Runs the same statements on either engine, with native parameter binding.
///
/// `$on` is the executor: [`Db::reader`], [`Db::writer`] or [`Transaction::connection`]. The body is compiled once per
/// engine.
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
/// A caller with an open transaction must write through that transaction only: SQLite has one writer, so a second
/// transaction would wait for the first.
///
/// On PostgreSQL the isolation level is `READ COMMITTED`: each statement sees what was committed before it, and a
/// statement that finds a row locked by another transaction waits for that transaction and then re-evaluates its
/// condition. On SQLite transactions are serialized. SQL must be correct on both: a write that depends on an earlier
/// read repeats the condition in its `WHERE` clause.
#[derive(Debug, Clone)]
pub struct Db(Either<SqliteDb, PostgresDb>);

impl Db {
    /// Opens a database and migrates its schema. A missing file and its directory are created, accessible to their
    /// owner only.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(location: impl Into<Location>, migrations: &'static [Migration]) -> Result<Self, OpenError> {
        Ok(Self(match location.into() {
            Location::File(path) => Either::Sqlite(sqlite::open(&path, migrations).await?),
            Location::Server(server) => Either::Postgres(postgres::open(server, migrations).await?),
        }))
    }

    /// The executor for reads. On SQLite its connections are read-only.
    #[must_use]
    pub fn reader(&self) -> Either<&SqlitePool, PostgresPool> {
        match &self.0 {
            Either::Sqlite(sqlite) => Either::Sqlite(&sqlite.readers),
            Either::Postgres(postgres) => Either::Postgres(postgres.pool()),
        }
    }

    /// The executor for a single write. Several statements belong in a transaction: see [`Db::begin`].
    ///
    /// Read the rows of a statement with `RETURNING` with `fetch_all`: `fetch_one` and `fetch_optional` stop at the
    /// first row, and then sqlx discards the error of a failed commit, for example on a full disk.
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
            // Takes the write lock at once, so that no other write comes between a read and a write of this
            // transaction.
            Either::Sqlite(sqlite) => Either::Sqlite(sqlite.writer.begin_with("BEGIN IMMEDIATE").await?),
            Either::Postgres(postgres) => Either::Postgres(postgres.pool().begin(None).await?),
        }))
    }

    /// Begins a transaction that reads: all of its statements see the same state. It does not wait for writers.
    pub async fn begin_read(&self) -> sqlx::Result<Transaction> {
        Ok(Transaction(match &self.0 {
            Either::Sqlite(sqlite) => Either::Sqlite(sqlite.readers.begin().await?),
            Either::Postgres(postgres) => {
                Either::Postgres(postgres.pool().begin(Some("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")).await?)
            }
        }))
    }

    /// Begins a transaction that excludes every other exclusive transaction, in all processes: for invariants that no
    /// `WHERE` clause can enforce. On SQLite every transaction is exclusive.
    pub async fn begin_exclusive(&self) -> sqlx::Result<Transaction> {
        let mut transaction = self.begin().await?;
        if let Either::Postgres(connection) = transaction.connection() {
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('drystone alone ' || current_schema(), 0))")
                .execute(connection)
                .await?;
        }
        Ok(transaction)
    }

    /// Runs a transaction, and retries it after a serialization failure or a deadlock, which PostgreSQL resolves by
    /// rolling it back. It must have no side effects outside the database.
    ///
    /// It is not retried after a lost connection, since it may have been committed.
    pub async fn retry<T, E, F>(&self, transaction: impl Fn() -> F + Send) -> Result<T, E>
    where
        E: StdError + Send + 'static,
        F: Future<Output = Result<T, E>> + Send,
    {
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        for _ in 0..MAX_RETRIES {
            match transaction().await {
                Err(error) if failure::find_in_sources(&error) == Some(Failure::Conflict) => {
                    tracing::debug!(cause = %error, "transaction conflict, retrying");
                }
                outcome => return outcome,
            }
            // With jitter, so that the transactions do not conflict again.
            tokio::time::sleep(backoff.failed()).await;
        }
        transaction().await
    }

    /// Removes earlier values of rows of these tables from the files of the database: from free space, and on SQLite from the
    /// write-ahead log. It writes the whole file of SQLite anew, or the tables of PostgreSQL, and meanwhile nothing else is written
    /// there. PostgreSQL's own log still has them until its segments are recycled.
    ///
    /// # Errors
    /// Also if the database is in use for longer than a few seconds, or the role does not own the tables: earlier values may be left.
    pub async fn scrub(&self, tables: &[&str]) -> sqlx::Result<()> {
        match &self.0 {
            Either::Sqlite(sqlite) => sqlite::scrub(sqlite).await,
            Either::Postgres(postgres) => postgres::scrub(&postgres.pool(), tables).await,
        }
    }

    /// Checks that the database responds.
    pub async fn ping(&self) -> sqlx::Result<()> {
        match &self.0 {
            Either::Sqlite(sqlite) => migration::version_in_file(&sqlite.readers).await.map(drop),
            Either::Postgres(postgres) => postgres.ping().await,
        }
    }

    /// Closes all connections, after the statements in progress.
    pub async fn close(&self) {
        match &self.0 {
            Either::Sqlite(sqlite) => sqlite.close().await,
            Either::Postgres(postgres) => postgres.pool().close().await,
        }
    }
}
