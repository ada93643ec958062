//! The errors of this service, and the reason of each.

use drystone_mesh::{
    error::{Error as MeshError, Reason},
    etag,
};
use tonic::Status;

use crate::Quota;

/// An error of the property service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such property, or a property of another user.
    #[error("there is no such property, or you do not own it")]
    NotFound,
    /// The request id was used for a property with other content.
    #[error("this request id was used for a property with other content; generate a new id")]
    RequestIdReused,
    /// The property has changed since its etag was read.
    #[error("the property has changed since its etag was read")]
    Stale,
    /// The user's quota does not allow more.
    #[error("your properties would exceed your quota of {} properties and {} bytes; delete or shorten some", .0.properties, .0.bytes)]
    QuotaExceeded(Quota),
    /// The user has used too many request ids.
    #[error("you have used {} request ids in 24 hours; wait, or create without a request id", .0.request_ids)]
    TooManyRequestIds(Quota),
    /// The store failed.
    #[error("the property store failed")]
    Store(#[from] sqlx::Error),
}

impl From<Error> for MeshError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::NotFound => Self::new(Reason::PropertyNotFound, message),
            Error::RequestIdReused => Self::new(Reason::RequestIdReused, message),
            Error::QuotaExceeded(_) | Error::TooManyRequestIds(_) => Self::new(Reason::QuotaExceeded, message),
            Error::Stale => etag::stale(),
            Error::Store(cause) => drystone_store::to_mesh_error(cause),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        MeshError::from(error).into()
    }
}
