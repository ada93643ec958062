//! How this service fails, each failure with its reason.

use drystone_mesh::error::{Error as MeshError, Reason};
use tokio::task::JoinError;
use tonic::Status;

use crate::store::StoreError;

/// A failure of the session service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The session has expired, was ended, or never was.
    #[error("the session is over; sign in again")]
    Ended,
    /// A refresh token came a second time.
    #[error("this refresh token was used before, so that the session has been ended to be safe; sign in again")]
    Reused,
    /// A refresh token that was never issued.
    #[error("this refresh token was never issued; sign in again")]
    NeverIssued,
    /// No such session, or somebody else's.
    #[error("you have no such session; list your sessions to see which there are")]
    NotFound,
    /// The store failed.
    #[error("the store of sessions failed")]
    Store(#[from] StoreError),
    /// Work that had to be done to its end was not.
    #[error("the work was interrupted")]
    Interrupted(#[from] JoinError),
}

impl From<Error> for MeshError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Ended => Self::new(Reason::SessionEnded, message),
            Error::Reused => Self::new(Reason::RefreshTokenReused, message),
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
