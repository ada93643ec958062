//! Redis: one connection that mends itself, a time limit for each command, and a breaker, so that a Redis that is away
//! costs its callers nothing but the answer that it is.
//!
//! | file | holds |
//! |---|---|
//! | `config.rs` | the section `[redis]` |
//! | `password.rs` | the password, where a file holds it |
//! | `servers.rs` | where Redis is, and how it is reached: a single server or a Cluster |
//! | `circuit.rs` | the breaker: when Redis is taken to be away, and how it is found to be back |
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

use std::{fmt, sync::Arc, time::Duration};

pub use ::redis::{Cmd, FromRedisValue, Script, ScriptInvocation, cmd};
use tokio::time::timeout;

use self::{
    circuit::Circuit,
    servers::{Link, Servers},
};
pub use self::{config::Config, failure::Failure, probe::probe, servers::OpenError};

/// How much longer than it was told to Redis may let a command block until it is taken to be away.
const BLOCKED: Duration = Duration::from_secs(1);

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
    /// The configuration cannot be used: see [`OpenError`].
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let servers = Servers::new(config)?;
        let (prefix, limit) = (config.prefix.clone(), config.timeout.duration());
        let this = Self(Arc::new(Inner { servers, prefix, limit, circuit: Circuit::open() }));
        tokio::spawn(circuit::mend(Arc::downgrade(&this.0)));
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
        let outcome = timeout(self.0.limit, link.run(script)).await;
        self.judge(outcome)
    }

    /// Sends a command that does not block.
    ///
    /// # Errors
    /// See [`Failure`]. After a time-out it is not known whether the command has run.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let mut link = self.0.circuit.link()?;
        let outcome = timeout(self.0.limit, link.query(command)).await;
        self.judge(outcome)
    }

    /// Proves that Redis answers.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn ping(&self) -> Result<(), Failure> {
        self.query::<()>(&cmd("PING")).await
    }

    /// A connection of one's own, for commands that block for up to `patience`. It does not mend itself: after a
    /// failure, ask for another.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn dedicated(&self, patience: Duration) -> Result<Dedicated, Failure> {
        // While Redis is known to be away, nobody need find it out again.
        drop(self.0.circuit.link()?);
        let link = self.0.servers.connect_for(patience + BLOCKED).await?;
        Ok(Dedicated { link })
    }

    fn judge<T>(&self, outcome: Result<::redis::RedisResult<T>, tokio::time::error::Elapsed>) -> Result<T, Failure> {
        let failure = match outcome {
            Ok(Ok(answer)) => {
                self.0.circuit.succeeded();
                return Ok(answer);
            }
            Ok(Err(error)) => Failure::from(error),
            Err(_) => Failure::TimedOut(self.0.limit),
        };
        if !failure.is_away() {
            // It has answered, if only to refuse.
            self.0.circuit.succeeded();
        } else if self.0.circuit.failed(&failure) {
            tokio::spawn(circuit::mend(Arc::downgrade(&self.0)));
        }
        Err(failure)
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
