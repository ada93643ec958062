//! How a command fails.

use std::time::Duration;

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

use drystone_mesh::error::Error;

/// How a command fails.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Redis is known to be unavailable; nothing was sent.
    #[error("redis is unavailable: {0}")]
    Unavailable(String),
    /// Redis did not answer in time. Whether the command was executed is not known.
    #[error("redis did not answer within {0:?}")]
    TimedOut(Duration),
    /// The connection failed, or Redis refused the command.
    #[error("redis failed: {0}")]
    Redis(RedisError),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl Failure {
    /// Whether Redis cannot be reached, or answers that it cannot serve now: this counts for the breaker.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        let Self::Redis(error) = self else { return true };
        matches!(
            error.kind(),
            ErrorKind::Io
                | ErrorKind::AuthenticationFailed
                | ErrorKind::ClusterConnectionNotFound
                | ErrorKind::Server(
                    ServerErrorKind::BusyLoading
                        | ServerErrorKind::ClusterDown
                        | ServerErrorKind::MasterDown
                        | ServerErrorKind::ReadOnly
                        | ServerErrorKind::TryAgain
                )
        )
    }

    /// Whether Redis has no memory or no disk left for the write.
    fn is_full(&self) -> bool {
        matches!(self, Self::Redis(error) if matches!(error.code(), Some("OOM" | "MISCONF" | "NOREPLICAS")))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        if failure.is_unavailable() || failure.is_full() {
            Self::unavailable("the store", failure)
        } else {
            Self::internal(failure)
        }
    }
}
