//! Redis: one shared connection that reconnects, a timeout for each command, and a circuit breaker, so that commands
//! fail at once while Redis is unavailable.
//!
//! | file | contents |
//! |---|---|
//! | `config.rs` | the section `[redis]` |
//! | `password.rs` | reads the password file |
//! | `servers.rs` | connects to a single server or a Cluster |
//! | `circuit.rs` | the circuit breaker |
//! | `command_error.rs` | errors of commands |
//! | `probe.rs` | the health probe |
//!
//! A service runs a [`Script`] with [`Redis::run`], and any other command with [`Redis::query`]. Scripts are sent with
//! `EVALSHA`, and loaded first if Redis does not have them (after a restart or a flush). Blocking commands need a
//! connection of their own: [`Redis::dedicated`].
//!
//! Keys begin with [`Redis::prefix`]. All keys of a script share a hash tag, `{tag}`, so that they are in one slot of a
//! Cluster.

mod circuit;
mod command_error;
mod config;
mod password;
mod probe;
mod servers;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

pub use ::redis::{Cmd, FromRedisValue, Script, ScriptInvocation, cmd};
use tokio::time::timeout;

use self::{
    circuit::CircuitBreaker,
    servers::{RedisConnection, Servers},
};
pub use self::{command_error::CommandError, config::Config, probe::probe, servers::RedisOpenError};

/// Added to the timeout of a blocking command, for the round trip.
const BLOCKING_MARGIN: Duration = Duration::from_secs(1);

/// A Redis. Clones share the connection and the circuit breaker.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    servers: Servers,
    prefix: String,
    command_timeout: Duration,
    circuit: CircuitBreaker,
}

impl Redis {
    /// Connects in the background, and reconnects for as long as a clone of this exists. Redis need not be available
    /// yet. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The configuration is invalid: see [`RedisOpenError`].
    pub fn open(config: &Config) -> Result<Self, RedisOpenError> {
        let servers = Servers::new(config)?;
        let (prefix, command_timeout) = (config.prefix.clone(), config.timeout.duration());
        let this = Self(Arc::new(Inner { servers, prefix, command_timeout, circuit: CircuitBreaker::open() }));
        tokio::spawn(circuit::reconnect(Arc::downgrade(&this.0)));
        Ok(this)
    }

    /// The prefix of every key.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// Waits until Redis is connected.
    pub async fn ready(&self) {
        self.0.circuit.closed().await;
    }

    /// Runs a script.
    ///
    /// # Errors
    /// See [`CommandError`]. After a timeout the script may have been executed.
    pub async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, CommandError> {
        let mut connection = self.0.circuit.connection()?;
        let outcome = timeout(self.0.command_timeout, connection.run(script)).await;
        self.record(outcome)
    }

    /// Sends a command that does not block.
    ///
    /// # Errors
    /// See [`CommandError`]. After a timeout the command may have been executed.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CommandError> {
        let mut connection = self.0.circuit.connection()?;
        let outcome = timeout(self.0.command_timeout, connection.query(command)).await;
        self.record(outcome)
    }

    /// Checks that Redis responds.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn ping(&self) -> Result<(), CommandError> {
        self.query::<()>(&cmd("PING")).await
    }

    /// Opens a separate connection, for commands that block for up to `block_timeout`. It does not reconnect: open
    /// another one after an error.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn dedicated(&self, block_timeout: Duration) -> Result<DedicatedConnection, CommandError> {
        // Fails at once while the circuit is open.
        drop(self.0.circuit.connection()?);
        let connection = self.0.servers.connect_dedicated(block_timeout + BLOCKING_MARGIN).await?;
        Ok(DedicatedConnection { connection })
    }

    fn record<T>(
        &self,
        outcome: Result<::redis::RedisResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, CommandError> {
        let error = match outcome {
            Ok(Ok(reply)) => {
                self.0.circuit.succeeded();
                return Ok(reply);
            }
            Ok(Err(error)) => CommandError::from(error),
            Err(_) => CommandError::TimedOut(self.0.command_timeout),
        };
        if !error.is_unavailable() {
            // Redis has responded, with an error.
            self.0.circuit.succeeded();
        } else if self.0.circuit.failed(&error) {
            tokio::spawn(circuit::reconnect(Arc::downgrade(&self.0)));
        }
        Err(error)
    }
}

/// The Redis of a process, opened by the first service that uses it. Clones share it.
#[derive(Debug, Clone)]
pub struct SharedRedis(Arc<(Config, OnceLock<Redis>)>);

impl SharedRedis {
    /// The Redis with this configuration, not opened yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new((config, OnceLock::new())))
    }

    /// Returns the Redis, and opens it on first use.
    ///
    /// # Errors
    /// As [`Redis::open`].
    pub fn get(&self) -> Result<Redis, RedisOpenError> {
        let (config, opened) = &*self.0;
        if let Some(redis) = opened.get() {
            return Ok(redis.clone());
        }
        let redis = Redis::open(config)?;
        Ok(opened.get_or_init(|| redis).clone())
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("prefix", &self.0.prefix).finish_non_exhaustive()
    }
}

/// A separate connection for blocking commands.
pub struct DedicatedConnection {
    connection: RedisConnection,
}

impl DedicatedConnection {
    /// Sends a command.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, CommandError> {
        Ok(self.connection.query(command).await?)
    }
}

impl fmt::Debug for DedicatedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DedicatedConnection").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
