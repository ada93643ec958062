//! The errors of this service, and the reason of each.

use drystone_mesh::error::{Error as MeshError, Reason};
use drystone_store::sealing::{CheckError, SealError};
use tonic::Status;

/// An error of the notification service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such template.
    #[error("there is no template `{0}`; `drystone notifications preview` lists those there are")]
    TemplateNotFound(String),
    /// The template does not list the caller among its senders.
    #[error("the template `{template}` may not be sent by `{sender}`; list it in `senders` of its template.toml")]
    SenderNotAllowed {
        /// The template.
        template: String,
        /// The calling workload.
        sender: String,
    },
    /// The id belongs to another message.
    #[error("this message id was used for another message; generate a new one")]
    MessageIdReused,
    /// No such delivery.
    #[error("there is no such delivery")]
    DeliveryNotFound,
    /// The delivery was not given up, or cannot be made any more.
    #[error("the delivery was not given up, or its message has expired")]
    DeliveryNotDead,
    /// The user watches too often at once.
    #[error("the inbox has too many watchers; end another one")]
    TooManyWatchers,
    /// A message cannot be made of its template.
    #[error("the template `{0}` cannot be rendered")]
    Render(String, #[source] crate::template::RenderError),
    /// The parameters cannot be encrypted or decrypted.
    #[error("the parameters of messages cannot be encrypted or decrypted")]
    Seal(#[from] SealError),
    /// The store failed.
    #[error("the store of messages failed")]
    Store(#[from] sqlx::Error),
}

impl From<CheckError> for Error {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Store(error) => Self::Store(error),
            CheckError::Seal(error) => Self::Seal(error),
        }
    }
}

impl From<Error> for MeshError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::TemplateNotFound(_) => Self::new(Reason::TemplateNotFound, message),
            Error::SenderNotAllowed { .. } => Self::new(Reason::CallerNotAllowed, message),
            Error::MessageIdReused => Self::new(Reason::RequestIdReused, message),
            Error::DeliveryNotFound => Self::new(Reason::DeliveryNotFound, message),
            Error::DeliveryNotDead => Self::new(Reason::DeliveryNotDead, message),
            Error::TooManyWatchers => Self::new(Reason::Overloaded, message),
            Error::Seal(SealError::Unavailable(cause)) => Self::unavailable("the key management service", cause),
            Error::Store(cause) => drystone_store::to_mesh_error(cause),
            error @ (Error::Render(..) | Error::Seal(_)) => Self::internal(error),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        MeshError::from(error).into()
    }
}
