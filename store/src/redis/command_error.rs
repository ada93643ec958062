//! Errors of commands.

use std::time::Duration;

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

use drystone_mesh::error::Error as MeshError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The circuit is open; nothing was sent.
    #[error("redis is unavailable: {0}")]
    Unavailable(String),
    /// Redis did not respond in time. The command may have been executed.
    #[error("redis did not respond within {0:?}")]
    TimedOut(Duration),
    /// The connection failed, or Redis returned an error.
    #[error("redis failed: {0}")]
    Redis(RedisError),
}

impl From<RedisError> for CommandError {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl CommandError {
    /// Whether Redis cannot be reached, or reports that it is unavailable. The circuit breaker counts these errors.
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

    /// Whether Redis rejected a write for lack of memory, disk space or replicas.
    fn is_full(&self) -> bool {
        matches!(self, Self::Redis(error) if matches!(error.code(), Some("OOM" | "MISCONF" | "NOREPLICAS")))
    }
}

impl From<CommandError> for MeshError {
    fn from(error: CommandError) -> Self {
        if error.is_unavailable() || error.is_full() {
            Self::unavailable("the store", error)
        } else {
            Self::internal(error)
        }
    }
}
