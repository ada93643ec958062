//! How this service fails, each failure with its reason.

use std::time::Duration;

use drystone_mesh::{
    error::{Error as MeshError, Reason},
    etag,
};
use tonic::Status;

/// A failure of the user service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another account has the address.
    #[error("another account has this e-mail address; sign in, or use a different one")]
    EmailTaken,
    /// The id is that of an account with another address.
    #[error("this user id belongs to an account with another e-mail address; make a new id")]
    IdTaken,
    /// No such account, or none that the user may see.
    #[error("there is no such account, or none that you may see")]
    NotFound,
    /// The account has changed since its etag was read.
    #[error("the account has changed since its etag was read")]
    Stale,
    /// The user may see the account, but not do this to it.
    #[error("this needs the permission `{0}`")]
    PermissionMissing(&'static str),
    /// The roles were changed, but the tokens that carry the old ones may still work.
    #[error("the roles are saved, but tokens with the old ones may work until they end; send the same call again")]
    TokensNotVoided(#[source] Box<Status>),
    /// The store failed.
    #[error("the store of accounts failed")]
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
            Error::TokensNotVoided(status) => {
                Self::new(Reason::Unavailable, message).retry_after(Duration::from_secs(1)).caused_by(status)
            }
            Error::Store(cause) => drystone_store::to_mesh_error(cause),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        MeshError::from(error).into()
    }
}
