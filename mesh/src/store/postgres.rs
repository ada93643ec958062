//! PostgreSQL: one pool of connections, each with the service's schema before it.

use std::{sync::Arc, time::Duration};

use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use super::{Migration, OpenError, migration, place::Server};

/// The oldest version that is known to work, as the server counts.
const OLDEST: u32 = 150_000;

/// How long a connection may have been idle before it is tried out first. Each was well when it was put back.
const TRUSTED: Duration = Duration::from_secs(1);

/// How long the trying out may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connections to a PostgreSQL database.
#[derive(Debug, Clone)]
pub(super) struct Postgres {
    pub(super) pool: PgPool,
    server: Arc<Server>,
}

/// Connects, and brings the schema up to date.
pub(super) async fn open(server: Server, migrations: &'static [Migration]) -> Result<Postgres, OpenError> {
    let options = server.options()?;
    let mut connection = connect(&server, &options).await?;
    let migrated = migration::run_on_server(&mut connection, &server, migrations).await;
    // What has been done is done, however the farewell goes.
    let _ = connection.close().await;
    migrated?;

    let pool = pool(&server).connect_lazy_with(options);
    Ok(Postgres { pool, server: Arc::new(server) })
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

fn pool(server: &Server) -> PgPoolOptions {
    let config = &server.pool;
    PgPoolOptions::new()
        .max_connections(config.connections)
        .acquire_timeout(config.acquire_timeout.duration())
        .idle_timeout(config.idle_timeout.duration())
        .max_lifetime(config.max_lifetime.duration())
        // A question before each statement would double the caller's way to the server.
        .test_before_acquire(false)
        .before_acquire(|connection, state| {
            Box::pin(async move { if state.idle_for > TRUSTED { try_out(connection).await } else { Ok(true) } })
        })
        // The pool waits without a bound for the end of a statement that its caller gave up. Where the server has
        // vanished without a word, that would be until the system gives the connection up, a quarter of an hour later.
        .after_release(|connection, _| Box::pin(try_out(connection)))
}

async fn try_out(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match timeout(PATIENCE, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

impl Postgres {
    /// Proves that the database answers. Where it refuses the login, the password is read anew for the next time.
    pub(super) async fn ping(&self) -> sqlx::Result<()> {
        let limit = self.server.pool.acquire_timeout.duration() + PATIENCE;
        let answer = match timeout(limit, migration::version_on_server(&self.pool)).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        };
        if let Err(sqlx::Error::Database(error)) = &answer
            && error.code().is_some_and(|code| code.starts_with("28"))
        {
            match self.server.options() {
                Ok(options) => self.pool.set_connect_options(options),
                Err(error) => tracing::warn!(%error, "the password was not read anew"),
            }
        }
        answer
    }
}
