//! How this service fails, each failure with its reason.

use drystone_mesh::{
    error::{Error as MeshError, Reason},
    etag,
};
use tonic::Status;

/// A failure of the property service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such property, or somebody else's.
    #[error("there is no such property, or it is not yours")]
    NotFound,
    /// The request id made another property.
    #[error("this request id was used for a property with other content; make a new id")]
    RequestIdReused,
    /// The property has changed since its etag was read.
    #[error("the property has changed since its etag was read")]
    Stale,
    /// The store failed.
    #[error("the store of properties failed")]
    Store(#[from] sqlx::Error),
}

impl From<Error> for MeshError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::NotFound => Self::new(Reason::PropertyNotFound, message),
            Error::RequestIdReused => Self::new(Reason::RequestIdReused, message),
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
