//! PostgreSQL: one pool of connections, each with the service's schema before it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{future::BoxFuture, stream::BoxStream};
use sqlx::{
    Connection, Execute, Executor, PgConnection, PgPool, SqlStr,
    postgres::{PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::time::timeout;

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
    pool: ArcSwap<PgPool>,
    /// How many connections have been given back.
    returned: Arc<AtomicU64>,
}

/// What to run a single statement on: whichever connection is free.
#[derive(Debug, Clone)]
pub struct PostgresPool(PgPool);

/// Connects, and brings the schema up to date.
pub(super) async fn open(server: Server, migrations: &'static [Migration]) -> Result<Postgres, OpenError> {
    let options = server.options()?;
    let mut connection = connect(&server, &options).await?;
    let migrated = migration::run_on_server(&mut connection, &server, migrations).await;
    // What has been done is done, however the farewell goes.
    let _ = connection.close().await;
    migrated?;

    let returned = Arc::new(AtomicU64::new(0));
    let pool = pool(&server, &returned).connect_lazy_with(options);
    Ok(Postgres(Arc::new(Inner { server, pool: ArcSwap::from_pointee(pool), returned })))
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

fn pool(server: &Server, returned: &Arc<AtomicU64>) -> PgPoolOptions {
    let config = &server.pool;
    let returned = returned.clone();
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
        .after_release(move |_, _| {
            returned.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(true) })
        })
}

async fn try_out(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match timeout(PATIENCE, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

impl Postgres {
    pub(super) fn pool(&self) -> PostgresPool {
        PostgresPool(PgPool::clone(&self.0.pool.load()))
    }

    /// Proves that the database answers, and sees to it that it does again after a failure.
    pub(super) async fn ping(&self) -> sqlx::Result<()> {
        let returned = self.0.returned.load(Ordering::Relaxed);
        // A connection that was just used is not tried out, and may hang for all that.
        let limit = self.0.server.pool.acquire_timeout.duration() + PATIENCE;
        let answer = match timeout(limit, migration::version_on_server(self.pool())).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        };
        match &answer {
            Err(sqlx::Error::PoolTimedOut) if self.0.returned.load(Ordering::Relaxed) == returned => self.renew().await,
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
        let Inner { server, pool: current, returned } = &*self.0;
        let Ok(options) = server.options() else { return };
        let Ok(connection) = connect(server, &options).await else { return };
        let _ = connection.close().await;
        tracing::warn!(database = %server.url, "no connection came back for a while, all are replaced");
        let old = current.swap(Arc::new(pool(server, returned).connect_lazy_with(options)));
        // It is closed from here on; its connections need not be waited for.
        drop(old.close());
    }

    fn read_password_anew(&self) {
        match self.0.server.options() {
            Ok(options) => self.0.pool.load().set_connect_options(options),
            Err(error) => tracing::warn!(%error, "the password was not read anew"),
        }
    }
}

impl PostgresPool {
    pub(super) async fn begin(&self) -> sqlx::Result<sqlx::Transaction<'static, sqlx::Postgres>> {
        self.0.begin().await
    }

    pub(super) async fn close(&self) {
        self.0.close().await;
    }
}

impl<'c> Executor<'c> for PostgresPool {
    type Database = sqlx::Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<sqlx::Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Self::Database>,
    {
        self.0.fetch_many(query)
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Self::Database>,
    {
        self.0.fetch_optional(query)
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        self.0.prepare_with(sql, parameters)
    }
}
