//! The gRPC handlers, one file per service: convert the request, call the domain, convert the result.

mod auth_service;
mod key_service;

pub(crate) use auth_service::AuthRpc;
pub(crate) use key_service::KeyRpc;
