//! Connections to PostgreSQL, kept warm between single statements.
//!
//! sqlx's pool pings each connection that is returned. That is a second round trip for a statement that takes one, and
//! halves the throughput of a service. Here a connection whose statement succeeded is kept as it is for the next one. After a
//! second, and at once after any failure, sqlx gets it back, with its ping and its rules for old and idle ones.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt, TryStreamExt},
};
use sqlx::{
    Execute, Executor, PgPool, SqlStr,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use super::MAX_UNTESTED_IDLE;

/// Runs single statements on any connection that is free. Clones are the same pool.
#[derive(Debug, Clone)]
pub struct PostgresPool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    /// One for each connection: its holder finds a connection here, or sqlx may open one more.
    permits: Arc<Semaphore>,
    max_connections: usize,
    /// How long a caller waits for a connection.
    acquire_timeout: Duration,
    warm: Mutex<Warm>,
    /// Notified when a connection is put there.
    put: Notify,
    /// When a caller last got a connection. While that happens, the pool does not hang.
    taken_at: Mutex<Instant>,
}

#[derive(Debug, Default)]
struct Warm {
    /// In the order of use.
    connections: Vec<Connection>,
    /// How many acquires of sqlx are under way.
    acquiring: usize,
    is_closed: bool,
}

/// A connection that sqlx had tested at this moment.
#[derive(Debug)]
struct Connection {
    inner: PoolConnection<sqlx::Postgres>,
    tested_at: Instant,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let warm = self.warm.get_mut().unwrap_or_else(PoisonError::into_inner);
        // sqlx would close them in a task, for which there may be no runtime any more.
        warm.connections.drain(..).for_each(|connection| drop(connection.inner.leak()));
    }
}

/// A transaction, and the permit for its connection.
#[derive(Debug)]
pub struct PostgresTransaction {
    pub(crate) inner: sqlx::Transaction<'static, sqlx::Postgres>,
    // Dropped after the transaction.
    _permit: OwnedSemaphorePermit,
}

impl PostgresPool {
    /// Over this pool, whose connections are used by nothing else.
    pub(super) fn new(pool: PgPool, connections: u32, acquire_timeout: Duration) -> Self {
        let max_connections = connections as usize;
        let permits = Arc::new(Semaphore::new(max_connections));
        let (put, taken_at) = (Notify::new(), Mutex::new(Instant::now()));
        Self(Arc::new(Inner { pool, permits, max_connections, acquire_timeout, warm: Mutex::default(), put, taken_at }))
    }

    /// Begins a transaction.
    pub(crate) async fn begin(&self) -> sqlx::Result<PostgresTransaction> {
        let (permit, connection) = self.take().await?;
        // In a task, which goes on if the caller is dropped: a BEGIN that is cancelled leaves a transaction open of which
        // sqlx does not know, and the next statements on that connection would be part of it.
        let begun = tokio::spawn(async move {
            let inner = sqlx::Transaction::begin(connection.inner, None).await?;
            Ok(PostgresTransaction { inner, _permit: permit })
        });
        begun.await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }

    /// How long no caller has got a connection.
    pub(super) fn stuck_for(&self) -> Duration {
        lock(&self.0.taken_at).elapsed()
    }

    /// Returns idle connections to sqlx, so that its rules for them hold.
    pub(super) fn sweep(&self) {
        self.warm().connections.retain(|connection| connection.tested_at.elapsed() < MAX_UNTESTED_IDLE);
    }

    /// The options of further connections.
    pub(super) fn set_connect_options(&self, options: PgConnectOptions) {
        self.0.pool.set_connect_options(options);
    }

    /// Refuses new statements, and waits for those under way.
    pub(crate) async fn close(&self) {
        self.stop();
        self.0.pool.close().await;
    }

    /// Refuses new statements, and waits for nothing.
    pub(super) fn abandon(&self) {
        self.stop();
        // It is closed from here on, without waiting for its connections.
        drop(self.0.pool.close());
    }

    fn stop(&self) {
        let mut warm = self.warm();
        warm.is_closed = true;
        warm.connections.clear();
    }

    async fn take(&self) -> sqlx::Result<(OwnedSemaphorePermit, Connection)> {
        let taken = timeout(self.0.acquire_timeout, async {
            let permit = self.0.permits.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
            Ok::<_, sqlx::Error>((permit, self.connection().await?))
        });
        let taken = taken.await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        *lock(&self.0.taken_at) = Instant::now();
        Ok(taken)
    }

    /// Whichever comes first: a connection that is put back, or one more of sqlx, which may be at its maximum for a moment: a
    /// statement whose caller was dropped holds its connection to its end.
    async fn connection(&self) -> sqlx::Result<Connection> {
        let mut acquiring = None;
        loop {
            let mut put = pin!(self.0.put.notified());
            // From here on, none that is put back is missed.
            put.as_mut().enable();
            if let Some(connection) = self.take_warm() {
                return Ok(connection);
            }
            if acquiring.is_none() {
                acquiring = self.acquire();
            }
            let acquired = async {
                match &mut acquiring {
                    Some(acquiring) => acquiring.await.unwrap_or(Err(sqlx::Error::WorkerCrashed)),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                connection = acquired => return connection,
                () = put => {}
            }
        }
    }

    fn take_warm(&self) -> Option<Connection> {
        let connection = self.warm().connections.pop()?;
        (connection.tested_at.elapsed() < MAX_UNTESTED_IDLE).then_some(connection)
    }

    /// Acquires one more of sqlx, unless as many acquires are under way as there may be connections.
    ///
    /// In a task, which goes on when its caller finds another connection first: a connect that is cancelled starts again
    /// with the next caller, and under load none would ever complete.
    fn acquire(&self) -> Option<oneshot::Receiver<sqlx::Result<Connection>>> {
        let mut warm = self.warm();
        if warm.acquiring >= self.0.max_connections {
            return None;
        }
        warm.acquiring += 1;
        let (done, acquiring) = oneshot::channel();
        let pool = self.clone();
        tokio::spawn(async move {
            let acquired = pool.0.pool.acquire().await;
            pool.warm().acquiring -= 1;
            let connection = acquired.map(|inner| Connection { inner, tested_at: Instant::now() });
            if let Err(Ok(connection)) = done.send(connection) {
                pool.put(connection);
            }
            // A caller that could not acquire one may do so now.
            pool.0.put.notify_one();
        });
        Some(acquiring)
    }

    /// Keeps a connection whose statement succeeded.
    fn put(&self, connection: Connection) {
        let mut warm = self.warm();
        if !warm.is_closed && connection.tested_at.elapsed() < MAX_UNTESTED_IDLE {
            warm.connections.push(connection);
            self.0.put.notify_one();
        }
    }

    fn warm(&self) -> MutexGuard<'_, Warm> {
        lock(&self.0.warm)
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows are returned when all of them have come: the connection is free for the next statement as soon as the server is
/// done, however slowly they are consumed. A service reads no more than a page at a time.
impl<'c> Executor<'c> for PostgresPool {
    type Database = sqlx::Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<sqlx::Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Self::Database>,
    {
        let rows = async move {
            let (_permit, mut connection) = self.take().await?;
            let rows: Vec<_> = connection.inner.fetch_many(query).try_collect().await?;
            self.put(connection);
            Ok::<_, sqlx::Error>(stream::iter(rows.into_iter().map(Ok)))
        };
        stream::once(rows).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Self::Database>,
    {
        Box::pin(async move {
            let (_permit, mut connection) = self.take().await?;
            let row = connection.inner.fetch_optional(query).await?;
            self.put(connection);
            Ok(row)
        })
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let (_permit, mut connection) = self.take().await?;
            let statement = connection.inner.prepare_with(sql, parameters).await?;
            self.put(connection);
            Ok(statement)
        })
    }
}
