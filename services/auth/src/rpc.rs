//! The RPCs, one file a gRPC service: convert, call the domain, convert back.

mod auth_service;
mod key_service;

pub(crate) use auth_service::AuthRpc;
pub(crate) use key_service::KeyRpc;
