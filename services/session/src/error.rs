//! The errors of this service, and the reason of each.

use std::time::Duration;

use drystone_mesh::error::{Error as MeshError, Reason};
use tokio::task::JoinError;
use tonic::Status;

use crate::store::StoreError;

/// An error of the session service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The session has expired, was ended, or never existed.
    #[error("the session has expired or was ended; sign in again")]
    Ended,
    /// A refresh token was used a second time.
    #[error("this refresh token was used before, so the session was ended for safety; sign in again")]
    Reused,
    /// A refresh token was used too often within the grace period.
    #[error("this refresh token is used by too many requests at once; refresh once, and share the result")]
    RepeatedTooOften(Duration),
    /// A refresh token that was never issued.
    #[error("this refresh token was never issued; sign in again")]
    NeverIssued,
    /// No such session, or a session of another user.
    #[error("you have no such session; list your sessions to see the active ones")]
    NotFound,
    /// The store failed.
    #[error("the session store failed")]
    Store(#[from] StoreError),
    /// A task that must run to completion did not.
    #[error("the operation was interrupted")]
    Interrupted(#[from] JoinError),
}

impl From<Error> for MeshError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Ended => Self::new(Reason::SessionEnded, message),
            Error::Reused => Self::new(Reason::RefreshTokenReused, message),
            Error::RepeatedTooOften(delay) => Self::new(Reason::RateLimited, message).retry_after(delay),
            Error::NeverIssued => Self::new(Reason::RefreshTokenInvalid, message),
            Error::NotFound => Self::new(Reason::SessionNotFound, message),
            Error::Store(StoreError::Sql(cause)) => drystone_store::to_mesh_error(cause),
            Error::Store(StoreError::Redis(cause)) => cause.into(),
            Error::Store(cause @ StoreError::Unreadable(_)) => Self::internal(cause),
            Error::Interrupted(cause) => Self::internal(cause),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        MeshError::from(error).into()
    }
}
