//! PostgreSQL: one pool of connections, each with the service's schema before it.

mod pool;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

pub use self::pool::{PostgresPool, PostgresTransaction};

use super::{Migration, OpenError, location::Server, migration};

/// The oldest version that is supported, in the form of `server_version_num`.
const MIN_SERVER_VERSION: u32 = 150_000;

/// How long a connection may have been idle before it is tested first. Each was usable when it was put back.
const MAX_UNTESTED_IDLE: Duration = Duration::from_secs(1);

/// How long the test may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The connections to a PostgreSQL database.
#[derive(Debug, Clone)]
pub(super) struct Postgres(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: Server,
    pool: ArcSwap<PostgresPool>,
}

/// Connects, and brings the schema up to date.
pub(super) async fn open(server: Server, migrations: &'static [Migration]) -> Result<Postgres, OpenError> {
    let options = server.options()?;
    let mut connection = connect(&server, &options).await?;
    let migrated = migration::run_on_server(&mut connection, &server, migrations).await;
    // The migration is committed, whether or not the connection closes cleanly.
    let _ = connection.close().await;
    migrated?;

    let pool = ArcSwap::from_pointee(pool(&server, options));
    Ok(Postgres(Arc::new(Inner { server, pool })))
}

/// One connection, to a server that is new enough.
pub(super) async fn connect(server: &Server, options: &PgConnectOptions) -> Result<PgConnection, OpenError> {
    let limit = server.pool.acquire_timeout;
    let connection = match timeout(limit.duration(), PgConnection::connect_with(options)).await {
        Ok(connected) => connected.map_err(|error| OpenError::of_server(server, &error))?,
        Err(_) => {
            return Err(OpenError::Unavailable {
                database: server.url.to_string(),
                service: server.service,
                cause: format!("nothing within {limit}"),
            });
        }
    };
    match connection.server_version_num() {
        Some(version) if version < MIN_SERVER_VERSION => {
            Err(OpenError::TooOld { database: server.url.to_string(), found: version / 10_000 })
        }
        _ => Ok(connection),
    }
}

fn pool(server: &Server, options: PgConnectOptions) -> PostgresPool {
    let config = &server.pool;
    let pool = PgPoolOptions::new()
        .max_connections(config.connections)
        .acquire_timeout(config.acquire_timeout.duration())
        .idle_timeout(config.idle_timeout.duration())
        .max_lifetime(config.max_lifetime.duration())
        // A test before each statement would be a second round trip for the caller.
        .test_before_acquire(false)
        .before_acquire(|connection, state| {
            Box::pin(async move {
                if state.idle_for > MAX_UNTESTED_IDLE { ping_in_time(connection).await } else { Ok(true) }
            })
        })
        .connect_lazy_with(options);
    PostgresPool::new(pool, config.connections, config.acquire_timeout.duration())
}

async fn ping_in_time(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

impl Postgres {
    pub(super) fn pool(&self) -> PostgresPool {
        PostgresPool::clone(&self.0.pool.load())
    }

    /// Proves that the database answers, and repairs the pool after a failure.
    pub(super) async fn ping(&self) -> sqlx::Result<()> {
        let pool = self.pool();
        pool.sweep();
        // A connection that was just used is not tested, and may hang nevertheless.
        let limit = self.0.server.pool.acquire_timeout.duration() + PING_TIMEOUT;
        let answer = match timeout(limit, migration::version_on_server(pool.clone())).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        };
        match &answer {
            // No statement may take so long, so that somebody would have got a connection meanwhile.
            Err(sqlx::Error::PoolTimedOut) if pool.stuck_for() > self.max_busy_time() => self.replace_pool().await,
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code.starts_with("28")) => {
                self.reload_password();
            }
            _ => {}
        }
        answer
    }

    /// Replaces a pool that hangs, if the server can be reached.
    ///
    /// A pool waits without a bound for the end of a statement whose caller was dropped. Where the server has vanished
    /// silently, that would be until the system gives the connection up, a quarter of an hour later. To bound
    /// that wait for each connection would cost another round trip for each statement.
    async fn replace_pool(&self) {
        let Inner { server, pool: current } = &*self.0;
        let Ok(options) = server.options() else { return };
        let Ok(connection) = connect(server, &options).await else { return };
        let _ = connection.close().await;
        tracing::warn!(database = %server.url, "no connection was returned for too long, all are replaced");
        current.swap(Arc::new(pool(server, options))).abandon();
    }

    /// How long a pool that works may be busy with statements under way.
    fn max_busy_time(&self) -> Duration {
        self.0.server.pool.statement_timeout.duration() + PING_TIMEOUT
    }

    fn reload_password(&self) {
        match self.0.server.options() {
            Ok(options) => self.0.pool.load().set_connect_options(options),
            Err(error) => tracing::warn!(%error, "the password was not read again"),
        }
    }
}
