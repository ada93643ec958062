//! The errors of this service, and the reason of each.

use std::time::Duration;

use drystone_mesh::{
    error::{Error as MeshError, Reason},
    etag,
};
use tonic::Status;

/// An error of the user service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another account has the e-mail address.
    #[error("another account has this e-mail address; sign in, or use a different one")]
    EmailTaken,
    /// The id belongs to an account with another e-mail address.
    #[error("this user id belongs to an account with another e-mail address; generate a new id")]
    IdTaken,
    /// No such account, or one that the user may not read.
    #[error("there is no such account, or you may not read it")]
    NotFound,
    /// The account has changed since its etag was read.
    #[error("the account has changed since its etag was read")]
    Stale,
    /// The user may read the account, but not change it.
    #[error("this requires the permission `{0}`")]
    PermissionMissing(&'static str),
    /// The roles were changed, and tokens with the previous roles are not void yet.
    #[error(
        "the roles are saved, and tokens with the previous roles will be void as soon as the session service answers; retry the call to wait for it"
    )]
    TokensNotVoided,
    /// The store failed.
    #[error("the account store failed")]
    Store(#[from] sqlx::Error),
}

impl From<Error> for MeshError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::EmailTaken => Self::new(Reason::EmailTaken, message),
            Error::IdTaken => Self::new(Reason::RequestIdReused, message),
            Error::NotFound => Self::new(Reason::UserNotFound, message),
            Error::Stale => etag::stale(),
            Error::PermissionMissing(_) => Self::new(Reason::PermissionMissing, message),
            Error::TokensNotVoided => Self::new(Reason::Unavailable, message).retry_after(Duration::from_secs(1)),
            Error::Store(cause) => drystone_store::to_mesh_error(cause),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        MeshError::from(error).into()
    }
}
