//! The circuit breaker of a Redis connection.
//!
//! While the circuit is closed, commands share a connection. After several consecutive failures it opens:
//! commands fail at once, and a task reconnects with backoff. A new connection that has responded closes the circuit.
//! So no caller waits to probe whether Redis has recovered, and a connection that hangs, or whose credentials have
//! become invalid, is replaced.

use std::{sync::Weak, time::Duration};

use arc_swap::ArcSwapOption;
use drystone_mesh::{backoff::Backoff, consecutive_failures::ConsecutiveFailures};
use tokio::{sync::watch, time::sleep};

use super::{CommandError, Inner, servers::RedisConnection};

/// The bounds of the backoff between attempts to connect.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// A circuit breaker with the connection that it protects.
pub(super) struct CircuitBreaker {
    connection: ArcSwapOption<RedisConnection>,
    failures: ConsecutiveFailures,
    /// Why the circuit is open; `None` while it is closed.
    cause: watch::Sender<Option<String>>,
}

impl CircuitBreaker {
    /// An open circuit, not connected yet.
    pub(super) fn open() -> Self {
        let (cause, _) = watch::channel(Some("not connected yet".to_owned()));
        Self { connection: ArcSwapOption::empty(), failures: ConsecutiveFailures::default(), cause }
    }

    /// The connection for a command.
    ///
    /// # Errors
    /// [`CommandError::Unavailable`] while the circuit is open.
    pub(super) fn connection(&self) -> Result<RedisConnection, CommandError> {
        let connection = self.connection.load();
        let unavailable = || CommandError::Unavailable(self.cause.borrow().clone().unwrap_or_default());
        connection.as_deref().cloned().ok_or_else(unavailable)
    }

    /// Waits until the circuit is closed.
    pub(super) async fn closed(&self) {
        // The sender is a field of this, so the wait cannot fail.
        let _ = self.cause.subscribe().wait_for(Option::is_none).await;
    }

    /// Records a response of Redis.
    pub(super) fn succeeded(&self) {
        self.failures.succeeded();
    }

    /// Records that Redis did not respond or is unavailable. Returns whether this opened the circuit; the caller must
    /// then spawn [`reconnect`].
    pub(super) fn failed(&self, error: &CommandError) -> bool {
        if !self.failures.failed() || self.connection.swap(None).is_none() {
            return false;
        }
        tracing::warn!(cause = %drystone_mesh::error::Chain(error), "redis is unavailable");
        self.cause.send_replace(Some(error.to_string()));
        true
    }

    /// Subscribes to the cause of the open circuit.
    #[cfg(test)]
    pub(super) fn cause(&self) -> watch::Receiver<Option<String>> {
        self.cause.subscribe()
    }

    fn close(&self, connection: RedisConnection) {
        self.failures.succeeded();
        self.connection.store(Some(connection.into()));
        self.cause.send_replace(None);
    }
}

/// Connects with backoff until it succeeds, and closes the circuit. Returns early when no clone of the Redis is left.
pub(super) async fn reconnect(redis: Weak<Inner>) {
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    let mut logged_cause = String::new();
    loop {
        let Some(redis) = redis.upgrade() else { return };
        match redis.servers.connect(redis.command_timeout).await {
            Ok(connection) => {
                tracing::info!("connected to redis");
                return redis.circuit.close(connection);
            }
            Err(error) => {
                let cause = error.to_string();
                // A cause is logged once, not for each attempt.
                if cause != logged_cause {
                    tracing::warn!(cause = cause, "cannot connect to redis");
                    logged_cause.clone_from(&cause);
                }
                redis.circuit.cause.send_replace(Some(cause));
            }
        }
        drop(redis);
        sleep(backoff.failed()).await;
    }
}
