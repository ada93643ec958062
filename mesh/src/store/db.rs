//! One service's database: an SQLite file, many readers, one writer.

use std::{path::Path, time::Duration};

use sqlx::{
    Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    Migration,
    file::{self, OpenError},
    migration,
};

/// How many connections read at once. Each has a thread of its own, and they open as they are needed.
const READERS: u32 = 4;

/// How long a statement waits for another process that writes, and a caller for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// A database. Clones share its connections.
///
/// SQLite lets one connection write at a time. There is one writer here, so that writers queue in order and without
/// `SQLITE_BUSY`, and readers never wait for them (WAL). Whoever holds a transaction must use nothing but that
/// transaction to write: a second way in would wait for the first.
#[derive(Debug, Clone)]
pub struct Db {
    readers: SqlitePool,
    writer: SqlitePool,
}

impl Db {
    /// Opens the file, creates it and its directory if need be, readable by its owner alone, and brings its schema up
    /// to date.
    ///
    /// # Errors
    /// A sentence that names the path and says what to do: see [`OpenError`].
    pub async fn open(path: &Path, migrations: &'static [Migration]) -> Result<Self, OpenError> {
        file::prepare(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);

        // Connections are never recycled: they are threads of this process, and nothing between can break.
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(PATIENCE)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer = pool()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(|error| file::explain(path, &error))?;
        let readers = pool().max_connections(READERS).connect_lazy_with(options.pragma("query_only", "ON"));

        let db = Self { readers, writer };
        if let Err(error) = migration::run(&db, path, migrations).await {
            db.close().await;
            return Err(error);
        }
        Ok(db)
    }

    /// The connections to read with. They refuse to write.
    #[must_use]
    pub fn reader(&self) -> &SqlitePool {
        &self.readers
    }

    /// The connection to write with, for a single statement. More than one belong in [`Db::begin`].
    ///
    /// A statement with `RETURNING` is to be read with `fetch_all`: `fetch_one` and `fetch_optional` stop at the first
    /// row, and then sqlx drops the error of a commit that fails, on a full disk for one.
    #[must_use]
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Begins a transaction that may write. It is rolled back when it is dropped without `commit`.
    pub async fn begin(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        // Taking the lock at once means that what is read inside is still so when it is written.
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    /// Proves that the database answers.
    pub async fn ping(&self) -> sqlx::Result<()> {
        migration::applied_version(&self.readers).await.map(drop)
    }

    /// Closes all connections, after the work that is under way.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
