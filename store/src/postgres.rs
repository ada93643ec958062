//! PostgreSQL: a connection pool whose search path is the service's schema.

mod pool;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

pub use self::pool::{PostgresPool, PostgresTransaction};

use super::{Migration, OpenError, location::PostgresLocation, migration};

/// The oldest supported version, as `server_version_num`.
const MIN_SERVER_VERSION: u32 = 150_000;

/// A connection that was idle for longer is tested before its next use.
const MAX_UNTESTED_IDLE: Duration = Duration::from_secs(1);

/// The timeout of that test.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long [`scrub`] waits for transactions that use a table.
const SCRUB_LOCK_TIMEOUT: &str = "10s";

/// A PostgreSQL database and its connection pool.
#[derive(Debug, Clone)]
pub(super) struct PostgresDb(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: PostgresLocation,
    pool: ArcSwap<PostgresPool>,
}

/// Connects, and migrates the schema.
pub(super) async fn open(server: PostgresLocation, migrations: &'static [Migration]) -> Result<PostgresDb, OpenError> {
    let options = server.options()?;
    let mut connection = connect(&server, &options).await?;
    let migrated = migration::run_on_server(&mut connection, &server, migrations).await;
    // The migration is committed, whether or not the connection closes cleanly.
    let _ = connection.close().await;
    migrated?;

    let pool = ArcSwap::from_pointee(pool(&server, options));
    Ok(PostgresDb(Arc::new(Inner { server, pool })))
}

/// Writes tables anew with their current rows only. Unlike `VACUUM FULL` it leaves nothing behind that an older transaction could
/// still read, and fails where the role does not own a table.
pub(super) async fn scrub(pool: &PostgresPool, tables: &[&str]) -> sqlx::Result<()> {
    let mut transaction = pool.begin(None).await?;
    let settings = format!("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{SCRUB_LOCK_TIMEOUT}'");
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *transaction.inner).await?;
    for table in tables {
        // Each of these writes the table anew.
        let rewrite = format!("ALTER TABLE \"{table}\" SET UNLOGGED; ALTER TABLE \"{table}\" SET LOGGED");
        sqlx::raw_sql(AssertSqlSafe(rewrite)).execute(&mut *transaction.inner).await?;
    }
    transaction.inner.commit().await
}

/// Opens a single connection, and checks the version of the server.
pub(super) async fn connect(server: &PostgresLocation, options: &PgConnectOptions) -> Result<PgConnection, OpenError> {
    let acquire_timeout = server.pool.acquire_timeout;
    let connection = match timeout(acquire_timeout.duration(), PgConnection::connect_with(options)).await {
        Ok(connected) => connected.map_err(|error| OpenError::of_server(server, &error))?,
        Err(_) => {
            return Err(OpenError::Unavailable {
                database: server.url.to_string(),
                service: server.service,
                cause: format!("no response within {acquire_timeout}"),
            });
        }
    };
    match connection.server_version_num() {
        Some(version) if version < MIN_SERVER_VERSION => {
            Err(OpenError::ServerTooOld { database: server.url.to_string(), found: version / 10_000 })
        }
        _ => Ok(connection),
    }
}

fn pool(server: &PostgresLocation, options: PgConnectOptions) -> PostgresPool {
    let config = &server.pool;
    let pool = PgPoolOptions::new()
        .max_connections(config.connections)
        .acquire_timeout(config.acquire_timeout.duration())
        .idle_timeout(config.idle_timeout.duration())
        .max_lifetime(config.max_lifetime.duration())
        // A test before each statement would cost another round trip.
        .test_before_acquire(false)
        .before_acquire(|connection, state| {
            Box::pin(async move {
                if state.idle_for > MAX_UNTESTED_IDLE { ping_with_timeout(connection).await } else { Ok(true) }
            })
        })
        .connect_lazy_with(options);
    PostgresPool::new(pool, config.connections, config.acquire_timeout.duration())
}

async fn ping_with_timeout(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

impl PostgresDb {
    pub(super) fn pool(&self) -> PostgresPool {
        PostgresPool::clone(&self.0.pool.load())
    }

    /// Checks that the database responds, and repairs the pool after a failure.
    pub(super) async fn ping(&self) -> sqlx::Result<()> {
        let pool = self.pool();
        pool.release_idle();
        // A connection that was used recently is not tested, but may hang.
        let limit = self.0.server.pool.acquire_timeout.duration() + PING_TIMEOUT;
        let answer = match timeout(limit, migration::version_on_server(pool.clone())).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        };
        match &answer {
            // In that time every statement has completed or timed out, so a working pool would have returned a
            // connection.
            Err(sqlx::Error::PoolTimedOut) if pool.time_since_acquire() > self.max_busy_time() => {
                self.replace_pool().await;
            }
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code.starts_with("28")) => {
                self.reload_password();
            }
            _ => {}
        }
        answer
    }

    /// Replaces a pool that hangs, if the server can be reached.
    ///
    /// A pool waits without a timeout for the end of a statement whose future was dropped. If the network has failed
    /// silently, that lasts until the operating system closes the connection, about 15 minutes later. A timeout for
    /// each connection would cost another round trip for each statement.
    async fn replace_pool(&self) {
        let Inner { server, pool: current } = &*self.0;
        let Ok(options) = server.options() else { return };
        let Ok(connection) = connect(server, &options).await else { return };
        let _ = connection.close().await;
        tracing::warn!(database = %server.url, "no connection was returned in time, all connections are replaced");
        current.swap(Arc::new(pool(server, options))).abandon();
    }

    /// How long a working pool may return no connection.
    fn max_busy_time(&self) -> Duration {
        self.0.server.pool.statement_timeout.duration() + PING_TIMEOUT
    }

    fn reload_password(&self) {
        match self.0.server.options() {
            Ok(options) => self.0.pool.load().set_connect_options(options),
            Err(error) => tracing::warn!(%error, "the password could not be reloaded"),
        }
    }
}
