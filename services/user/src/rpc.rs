//! The RPCs, one file per gRPC service, with the conversions to their messages.

mod export;
mod import;
mod list_query;
mod role_service;
mod user_message;
mod user_service;

use drystone_mesh::{
    call::{Actor, Call},
    error::Error as MeshError,
};
use tonic::{Request, Status};

use crate::{role::RoleName, store::ActorId};

fn invalid(field: &'static str, error: &impl ToString) -> MeshError {
    MeshError::invalid_field(field, error.to_string())
}

fn parse_role(field: &'static str, name: &str) -> Result<RoleName, MeshError> {
    name.parse().map_err(|error| invalid(field, &error))
}

fn actor<T>(request: &Request<T>) -> Result<ActorId, Status> {
    Ok(match Call::of(request)?.actor()? {
        Actor::User(user) => ActorId::User(user.user_id),
        Actor::Operator => ActorId::Operator,
    })
}
