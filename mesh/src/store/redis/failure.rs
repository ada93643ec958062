//! How a command fails.

use std::time::Duration;

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::Error;

/// How a command fails.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Redis is known to be away; nothing was sent.
    #[error("redis is away: {0}")]
    Away(String),
    /// Redis did not answer in time. It is not known whether it has done what it was told.
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
    /// Whether Redis cannot be reached, or says that it cannot serve now: a reason to leave it alone for a while.
    #[must_use]
    pub fn is_away(&self) -> bool {
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

    /// Whether Redis is there and has no room, or no disk, for what it was to keep.
    fn is_full(&self) -> bool {
        matches!(self, Self::Redis(error) if matches!(error.code(), Some("OOM" | "MISCONF" | "NOREPLICAS")))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        if failure.is_away() || failure.is_full() {
            Self::unavailable("the store", failure)
        } else {
            Self::internal(failure)
        }
    }
}
