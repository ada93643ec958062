//! The gRPC handlers, one file per service: convert the request, call the domain, convert the result.

mod auth_service;
mod email_service;
mod json;
mod key_service;
mod mfa_service;
mod passkey_service;
mod password_service;
mod sign_in_service;

pub(crate) use auth_service::AuthRpc;
pub(crate) use email_service::EmailRpc;
pub(crate) use key_service::KeyRpc;
pub(crate) use mfa_service::MfaRpc;
pub(crate) use passkey_service::PasskeyRpc;
pub(crate) use password_service::PasswordRpc;
pub(crate) use sign_in_service::SignInRpc;

use drystone_mesh::error::Error as MeshError;

/// Converts a parse error into `INVALID_REQUEST` for the field.
fn valid<T>(field: &'static str, parsed: Result<T, impl ToString>) -> Result<T, MeshError> {
    parsed.map_err(|error| MeshError::invalid_field(field, error.to_string()))
}
