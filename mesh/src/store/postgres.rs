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

use super::{Migration, OpenError, migration, place::Server};

/// The oldest version that is known to work, as the server counts.
const OLDEST: u32 = 150_000;

/// How long a connection may have been idle before it is tried out first. Each was well when it was put back.
const TRUSTED: Duration = Duration::from_secs(1);

/// How long the trying out may take.
const PATIENCE: Duration = Duration::from_secs(1);

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
    // What has been done is done, however the farewell goes.
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
            return Err(OpenError::Away {
                database: server.url.to_string(),
                service: server.service,
                cause: format!("nothing within {limit}"),
            });
        }
    };
    match connection.server_version_num() {
        Some(version) if version < OLDEST => {
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
        // A question before each statement would double the caller's way to the server.
        .test_before_acquire(false)
        .before_acquire(|connection, state| {
            Box::pin(async move { if state.idle_for > TRUSTED { try_out(connection).await } else { Ok(true) } })
        })
        .connect_lazy_with(options);
    PostgresPool::new(pool, config.connections, config.acquire_timeout.duration())
}

async fn try_out(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match timeout(PATIENCE, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

impl Postgres {
    pub(super) fn pool(&self) -> PostgresPool {
        PostgresPool::clone(&self.0.pool.load())
    }

    /// Proves that the database answers, and sees to it that it does again after a failure.
    pub(super) async fn ping(&self) -> sqlx::Result<()> {
        let pool = self.pool();
        pool.sweep();
        // A connection that was just used is not tried out, and may hang for all that.
        let limit = self.0.server.pool.acquire_timeout.duration() + PATIENCE;
        let answer = match timeout(limit, migration::version_on_server(pool.clone())).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        };
        match &answer {
            // No statement may take so long, so that somebody would have got a connection meanwhile.
            Err(sqlx::Error::PoolTimedOut) if pool.stuck_for() > self.longest() => self.renew().await,
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code.starts_with("28")) => {
                self.read_password_anew();
            }
            _ => {}
        }
        answer
    }

    /// Puts a new pool in the place of one that hangs, if the server can be reached.
    ///
    /// A pool waits without a bound for the end of a statement that its caller gave up. Where the server has vanished
    /// without a word, that would be until the system gives the connection up, a quarter of an hour later. To bound
    /// that wait for each connection would cost a way to the server more for each statement.
    async fn renew(&self) {
        let Inner { server, pool: current } = &*self.0;
        let Ok(options) = server.options() else { return };
        let Ok(connection) = connect(server, &options).await else { return };
        let _ = connection.close().await;
        tracing::warn!(database = %server.url, "no connection came back for a while, all are replaced");
        current.swap(Arc::new(pool(server, options))).abandon();
    }

    /// How long a pool that works may be busy with what it has begun.
    fn longest(&self) -> Duration {
        self.0.server.pool.statement_timeout.duration() + PATIENCE
    }

    fn read_password_anew(&self) {
        match self.0.server.options() {
            Ok(options) => self.0.pool.load().set_connect_options(options),
            Err(error) => tracing::warn!(%error, "the password was not read anew"),
        }
    }
}
