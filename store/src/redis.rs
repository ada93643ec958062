//! Redis: one connection that reconnects by itself, a time limit for each command, and a circuit breaker, so that calls fail at
//! once while Redis is unavailable.
//!
//! | file | holds |
//! |---|---|
//! | `config.rs` | the section `[redis]` |
//! | `password.rs` | the password, where a file holds it |
//! | `servers.rs` | where Redis is, and how it is reached: a single server or a Cluster |
//! | `circuit.rs` | the circuit breaker |
//! | `failure.rs` | how a command fails |
//! | `probe.rs` | health |
//!
//! A service sends a [`Script`] with [`Redis::run`], and any other command with [`Redis::query`]. Scripts travel as
//! their hash; a Redis that does not know one (it was restarted, or flushed) is told it, and asked again. Commands that
//! block have a connection of their own: [`Redis::dedicated`].
//!
//! Keys begin with [`Redis::prefix`]. Those that one script touches share a hash tag, `{tag}`, so that they are in one
//! slot of a Cluster.

mod circuit;
mod config;
mod failure;
mod password;
mod probe;
mod servers;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

pub use ::redis::{Cmd, FromRedisValue, Script, ScriptInvocation, cmd};
use tokio::time::timeout as within;

use self::{
    circuit::Circuit,
    servers::{Link, Servers},
};
pub use self::{config::Config, failure::Failure, probe::probe, servers::RedisOpenError};

/// How much longer than its own time limit a blocking command may take.
const BLOCKING_MARGIN: Duration = Duration::from_secs(1);

/// A Redis. Clones share its connection and its breaker.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    servers: Servers,
    prefix: String,
    /// How long a command may take.
    limit: Duration,
    circuit: Circuit,
}

impl Redis {
    /// A Redis that is connected to in the background, and for as long as there is a clone of this. It need not be
    /// there yet. To be called within a Tokio runtime.
    ///
    /// # Errors
    /// The configuration cannot be used: see [`RedisOpenError`].
    pub fn open(config: &Config) -> Result<Self, RedisOpenError> {
        let servers = Servers::new(config)?;
        let (prefix, limit) = (config.prefix.clone(), config.timeout.duration());
        let this = Self(Arc::new(Inner { servers, prefix, limit, circuit: Circuit::open() }));
        tokio::spawn(circuit::reconnect(Arc::downgrade(&this.0)));
        Ok(this)
    }

    /// What every key begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// Waits until Redis has answered.
    pub async fn ready(&self) {
        self.0.circuit.closed().await;
    }

    /// Runs a script.
    ///
    /// # Errors
    /// See [`Failure`]. After a time-out it is not known whether the script has run.
    pub async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Failure> {
        let mut link = self.0.circuit.link()?;
        let outcome = within(self.0.limit, link.run(script)).await;
        self.record(outcome)
    }

    /// Sends a command that does not block.
    ///
    /// # Errors
    /// See [`Failure`]. After a time-out it is not known whether the command has run.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let mut link = self.0.circuit.link()?;
        let outcome = within(self.0.limit, link.query(command)).await;
        self.record(outcome)
    }

    /// Proves that Redis answers.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn ping(&self) -> Result<(), Failure> {
        self.query::<()>(&cmd("PING")).await
    }

    /// A connection of one's own, for commands that block for up to `timeout`. It does not reconnect by itself: after a
    /// failure, ask for another.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn dedicated(&self, timeout: Duration) -> Result<Dedicated, Failure> {
        // While Redis is known to be unavailable, no connection is attempted.
        drop(self.0.circuit.link()?);
        let link = self.0.servers.connect_for(timeout + BLOCKING_MARGIN).await?;
        Ok(Dedicated { link })
    }

    fn record<T>(&self, outcome: Result<::redis::RedisResult<T>, tokio::time::error::Elapsed>) -> Result<T, Failure> {
        let failure = match outcome {
            Ok(Ok(answer)) => {
                self.0.circuit.succeeded();
                return Ok(answer);
            }
            Ok(Err(error)) => Failure::from(error),
            Err(_) => Failure::TimedOut(self.0.limit),
        };
        if !failure.is_unavailable() {
            // It has answered, with an error.
            self.0.circuit.succeeded();
        } else if self.0.circuit.failed(&failure) {
            tokio::spawn(circuit::reconnect(Arc::downgrade(&self.0)));
        }
        Err(failure)
    }
}

/// The Redis of a process, opened by the first service that uses it. Clones are the same Redis.
#[derive(Debug, Clone)]
pub struct SharedRedis(Arc<(Config, OnceLock<Redis>)>);

impl SharedRedis {
    /// The Redis of this configuration, not opened yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new((config, OnceLock::new())))
    }

    /// The Redis.
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

/// A connection for commands that block.
pub struct Dedicated {
    link: Link,
}

impl Dedicated {
    /// Sends a command.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Failure> {
        Ok(self.link.query(command).await?)
    }
}

impl fmt::Debug for Dedicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dedicated").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
