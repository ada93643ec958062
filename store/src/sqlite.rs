//! SQLite: a file, many readers, one writer.

use std::{path::Path, time::Duration};

use sqlx::{
    Connection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Migration, OpenError, file, migration};

/// The most connections that read at once. Each has a thread of its own, and they open as they are needed.
const MAX_READERS: u32 = 4;

/// How long a statement waits for another process that writes, and a caller for a connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// SQLite lets one connection write at a time. There is one writer here, so that writers queue in order and without
/// `SQLITE_BUSY`, and readers never wait for them (WAL).
#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    pub(super) readers: SqlitePool,
    pub(super) writer: SqlitePool,
}

/// Opens the file, creates it and its directory if need be, and brings its schema up to date.
pub(super) async fn open(path: &Path, migrations: &'static [Migration]) -> Result<Sqlite, OpenError> {
    file::prepare(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);

    // Connections are never recycled: they are threads of this process, with no network in between.
    let pool = || {
        SqlitePoolOptions::new()
            .acquire_timeout(BUSY_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    let writer = pool()
        .max_connections(1)
        // On a full disk SQLite rolls back by itself. sqlx then assumes that the connection is in a transaction for ever, and
        // refuses to begin another one on it.
        .after_release(|connection, _| {
            let is_free = !connection.is_in_transaction();
            Box::pin(async move { Ok(is_free) })
        })
        .connect_with(options.clone())
        .await
        .map_err(|error| OpenError::of_file(path, &error))?;
    let readers = pool().max_connections(MAX_READERS).connect_lazy_with(options.pragma("query_only", "ON"));

    let sqlite = Sqlite { readers, writer };
    if let Err(error) = migration::run_on_file(&sqlite, path, migrations).await {
        sqlite.close().await;
        return Err(error);
    }
    Ok(sqlite)
}

impl Sqlite {
    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
