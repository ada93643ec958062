//! SQLite: a file with a pool of readers and one writer.

use std::{path::Path, time::Duration};

use sqlx::{
    Connection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Migration, OpenError, file, migration};

/// The maximum number of reading connections. Each has its own thread, and is opened on demand.
const MAX_READERS: u32 = 4;

/// How much of the file one reading connection keeps in memory, in KiB: the inner pages of the indexes of a million rows, so that
/// finding a row reads one page.
const READER_CACHE_KIB: u32 = 8192;

/// How much of the file reading connections map into memory, in bytes, so that a page that the operating system has in memory is
/// neither read by a system call nor copied. Only address space: the kernel takes the pages back when memory is short.
const READER_MAP_BYTES: u64 = 1 << 30;

/// How long a statement waits for a writer in another process, and a caller for a connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often emptying the write-ahead log is tried, and the time between.
const SCRUB_ATTEMPTS: u32 = 100;
const SCRUB_INTERVAL: Duration = Duration::from_millis(50);

/// An SQLite database. SQLite has one writer at a time, so there is one writing connection: writers queue in order,
/// without `SQLITE_BUSY`. Readers never wait for them, because of the write-ahead log.
#[derive(Debug, Clone)]
pub(super) struct SqliteDb {
    pub(super) readers: SqlitePool,
    pub(super) writer: SqlitePool,
}

/// Opens the file, creates it and its directory if they are missing, and migrates its schema.
pub(super) async fn open(path: &Path, migrations: &'static [Migration]) -> Result<SqliteDb, OpenError> {
    file::prepare(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);

    // Connections are never recycled: they are local, so they cannot become stale.
    let pool = || {
        SqlitePoolOptions::new()
            .acquire_timeout(BUSY_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    let writer = pool()
        .max_connections(1)
        // On a full disk SQLite rolls back implicitly. sqlx does not notice, and could not begin another transaction on
        // that connection.
        .after_release(|connection, _| {
            let is_reusable = !connection.is_in_transaction();
            Box::pin(async move { Ok(is_reusable) })
        })
        .connect_with(options.clone())
        .await
        .map_err(|error| OpenError::of_file(path, &error))?;
    let readers = pool().max_connections(MAX_READERS).connect_lazy_with(
        options
            .pragma("query_only", "ON")
            .pragma("cache_size", format!("-{READER_CACHE_KIB}"))
            .pragma("mmap_size", READER_MAP_BYTES.to_string()),
    );

    let sqlite = SqliteDb { readers, writer };
    if let Err(error) = migration::run_on_file(&sqlite, path, migrations).await {
        sqlite.close().await;
        return Err(error);
    }
    Ok(sqlite)
}

impl SqliteDb {
    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Writes the file anew without free space, and empties the write-ahead log.
pub(super) async fn scrub(db: &SqliteDb) -> sqlx::Result<()> {
    sqlx::raw_sql("VACUUM").execute(&db.writer).await?;
    // A reader may still need the log.
    for _ in 0..SCRUB_ATTEMPTS {
        let (busy, _, _): (i64, i64, i64) =
            sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&db.writer).await?;
        if busy == 0 {
            return Ok(());
        }
        tokio::time::sleep(SCRUB_INTERVAL).await;
    }
    Err(sqlx::Error::Protocol("the write-ahead log is in use and could not be emptied; try again".to_owned()))
}
