//! Background tasks that keep a verifier up to date: keys from auth, revocations from session.

mod keys;
mod revocations;

use bytes::Bytes;
use tonic::{body::Body, client::GrpcService, codegen::StdError};

pub use self::keys::watch_keys;
pub(crate) use self::revocations::watch_revocations;

/// A transport of generated clients: [`crate::client::Channel`] in a mesh, a server in the same process in tests.
pub trait Transport:
    GrpcService<
        Body,
        ResponseBody: http_body::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
        Future: Send,
    > + Send
    + 'static
{
}

impl<T> Transport for T where
    T: GrpcService<
            Body,
            ResponseBody: http_body::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
            Future: Send,
        > + Send
        + 'static
{
}
