//! A pool of PostgreSQL connections that are reused without a test between single statements.
//!
//! The pool of sqlx pings each connection that is returned. That is a second round trip per statement, and halves the
//! throughput of a service. Here a connection whose statement succeeded is kept for the next statement. After
//! [`MAX_UNTESTED_IDLE`], and at once after any error, it is returned to sqlx, which pings it and applies its limits on
//! age and idle time.

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

/// Runs single statements on any free connection. Clones share the pool.
#[derive(Debug, Clone)]
pub struct PostgresPool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    /// One per connection: a holder takes an idle connection, or sqlx may open another one.
    permits: Arc<Semaphore>,
    max_connections: usize,
    /// How long a caller waits for a connection.
    acquire_timeout: Duration,
    idle: Mutex<IdleConnections>,
    /// Notified when a connection is returned.
    returned: Notify,
    /// When a caller last got a connection, to detect a pool that hangs.
    last_acquired_at: Mutex<Instant>,
}

#[derive(Debug, Default)]
struct IdleConnections {
    /// The most recently used is last.
    connections: Vec<PooledConnection>,
    /// The number of acquires from sqlx in progress.
    acquiring: usize,
    is_closed: bool,
}

/// A connection, and when sqlx last tested it.
#[derive(Debug)]
struct PooledConnection {
    inner: PoolConnection<sqlx::Postgres>,
    tested_at: Instant,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        // sqlx would close them in a task, but the runtime may have stopped.
        idle.connections.drain(..).for_each(|connection| drop(connection.inner.leak()));
    }
}

/// A transaction, and the permit of its connection.
#[derive(Debug)]
pub struct PostgresTransaction {
    pub(crate) inner: sqlx::Transaction<'static, sqlx::Postgres>,
    // Dropped after the transaction.
    _permit: OwnedSemaphorePermit,
}

impl PostgresPool {
    /// A pool that uses all connections of this sqlx pool.
    pub(super) fn new(pool: PgPool, connections: u32, acquire_timeout: Duration) -> Self {
        let max_connections = connections as usize;
        let permits = Arc::new(Semaphore::new(max_connections));
        Self(Arc::new(Inner {
            pool,
            permits,
            max_connections,
            acquire_timeout,
            idle: Mutex::default(),
            returned: Notify::new(),
            last_acquired_at: Mutex::new(Instant::now()),
        }))
    }

    /// Begins a transaction.
    /// `begin` is the statement, if it is not plain `BEGIN`.
    pub(crate) async fn begin(&self, begin: Option<&'static str>) -> sqlx::Result<PostgresTransaction> {
        let (permit, connection) = self.acquire().await?;
        // In a task, which continues if the caller is dropped: a cancelled BEGIN leaves an open transaction that sqlx
        // does not track, and the next statements on that connection would be part of it.
        let transaction = tokio::spawn(async move {
            let inner = sqlx::Transaction::begin(connection.inner, begin.map(SqlStr::from_static)).await?;
            Ok(PostgresTransaction { inner, _permit: permit })
        });
        transaction.await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }

    /// The time since a caller last got a connection.
    pub(super) fn time_since_acquire(&self) -> Duration {
        lock(&self.0.last_acquired_at).elapsed()
    }

    /// Returns idle connections to sqlx, so that it applies its limits to them.
    pub(super) fn release_idle(&self) {
        self.idle().connections.retain(|connection| connection.tested_at.elapsed() < MAX_UNTESTED_IDLE);
    }

    /// Sets the options of new connections.
    pub(super) fn set_connect_options(&self, options: PgConnectOptions) {
        self.0.pool.set_connect_options(options);
    }

    /// Rejects new statements, and waits for those in progress.
    pub(crate) async fn close(&self) {
        self.stop();
        self.0.pool.close().await;
    }

    /// Rejects new statements, without waiting for those in progress.
    pub(super) fn abandon(&self) {
        self.stop();
        // Marks it as closed; the future would wait for its connections.
        drop(self.0.pool.close());
    }

    fn stop(&self) {
        let mut idle = self.idle();
        idle.is_closed = true;
        idle.connections.clear();
    }

    async fn acquire(&self) -> sqlx::Result<(OwnedSemaphorePermit, PooledConnection)> {
        let acquired = timeout(self.0.acquire_timeout, async {
            let permit = self.0.permits.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
            Ok::<_, sqlx::Error>((permit, self.connection().await?))
        });
        let acquired = acquired.await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        *lock(&self.0.last_acquired_at) = Instant::now();
        Ok(acquired)
    }

    /// Waits for a returned connection or for a new one of sqlx, whichever is first. sqlx may be at its maximum
    /// although there is a permit: a statement whose caller was dropped holds its connection until it completes.
    async fn connection(&self) -> sqlx::Result<PooledConnection> {
        let mut acquiring = None;
        loop {
            let mut returned = pin!(self.0.returned.notified());
            // Enabled before the check, so that no notification is missed.
            returned.as_mut().enable();
            if let Some(connection) = self.take_idle() {
                return Ok(connection);
            }
            if acquiring.is_none() {
                acquiring = self.acquire_from_sqlx();
            }
            let acquired = async {
                match &mut acquiring {
                    Some(acquiring) => acquiring.await.unwrap_or(Err(sqlx::Error::WorkerCrashed)),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                connection = acquired => return connection,
                () = returned => {}
            }
        }
    }

    fn take_idle(&self) -> Option<PooledConnection> {
        let connection = self.idle().connections.pop()?;
        (connection.tested_at.elapsed() < MAX_UNTESTED_IDLE).then_some(connection)
    }

    /// Acquires a connection from sqlx, unless the number of acquires in progress is at the maximum.
    ///
    /// In a task, which continues when its caller gets another connection first: a cancelled connect would start again
    /// with the next caller, and under load none would ever complete.
    fn acquire_from_sqlx(&self) -> Option<oneshot::Receiver<sqlx::Result<PooledConnection>>> {
        let mut idle = self.idle();
        if idle.acquiring >= self.0.max_connections {
            return None;
        }
        idle.acquiring += 1;
        let (sender, receiver) = oneshot::channel();
        let pool = self.clone();
        tokio::spawn(async move {
            let acquired = pool.0.pool.acquire().await;
            pool.idle().acquiring -= 1;
            let connection = acquired.map(|inner| PooledConnection { inner, tested_at: Instant::now() });
            if let Err(Ok(connection)) = sender.send(connection) {
                pool.release(connection);
            }
            // A caller that was at the maximum may acquire one now.
            pool.0.returned.notify_one();
        });
        Some(receiver)
    }

    /// Keeps a connection whose statement succeeded.
    fn release(&self, connection: PooledConnection) {
        let mut idle = self.idle();
        if !idle.is_closed && connection.tested_at.elapsed() < MAX_UNTESTED_IDLE {
            idle.connections.push(connection);
            self.0.returned.notify_one();
        }
    }

    fn idle(&self) -> MutexGuard<'_, IdleConnections> {
        lock(&self.0.idle)
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All rows are buffered: the connection is released as soon as the server has sent them, however slowly the caller
/// consumes them. A service reads at most one page at a time.
impl<'c> Executor<'c> for PostgresPool {
    type Database = sqlx::Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<sqlx::Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Self::Database>,
    {
        let rows = async move {
            let (_permit, mut connection) = self.acquire().await?;
            let rows: Vec<_> = connection.inner.fetch_many(query).try_collect().await?;
            self.release(connection);
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
            let (_permit, mut connection) = self.acquire().await?;
            let row = connection.inner.fetch_optional(query).await?;
            self.release(connection);
            Ok(row)
        })
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let (_permit, mut connection) = self.acquire().await?;
            let statement = connection.inner.prepare_with(sql, parameters).await?;
            self.release(connection);
            Ok(statement)
        })
    }
}
