//! The RPCs, one file per gRPC service, with the conversions to their messages.

mod role_service;
mod user_service;

use drystone_mesh::error::Error as MeshError;

use crate::role::RoleName;

fn invalid(field: &'static str, error: &impl ToString) -> MeshError {
    MeshError::invalid_field(field, error.to_string())
}

fn parse_role(field: &'static str, name: &str) -> Result<RoleName, MeshError> {
    name.parse().map_err(|error| invalid(field, &error))
}
