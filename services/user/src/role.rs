//! Roles: named sets of permissions.

pub mod authority;
pub mod definitions;
pub mod evaluation;
mod name;
mod permission_set;

use drystone_mesh::clock::Timestamp;

pub use self::{
    authority::{Actor, Refused, Subject},
    definitions::{Definitions, InvalidRole, Permission},
    evaluation::{Effect, Effective, Grant, GrantRecord, Override, OverrideRecord},
    name::{InvalidRoleName, RoleName},
    permission_set::PermissionSet,
};

/// Has every permission.
pub const ADMIN: &str = "admin";
/// Manages accounts and the roles below it.
pub const MANAGER: &str = "manager";
/// What everybody has, without a grant.
pub const MEMBER: &str = "member";

/// The level of a role: who has a higher one may change and grant it.
pub type Level = u16;

/// The level of [`ADMIN`].
pub const ADMIN_LEVEL: Level = 1000;

/// The maximum number of roles of a mesh.
pub const MAX_ROLES: usize = 256;
/// The maximum number of roles of one user.
pub const MAX_GRANTS: usize = 16;
/// The maximum number of overrides of one user.
pub const MAX_OVERRIDES: usize = 64;

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The name.
    pub name: RoleName,
    /// What it is for.
    pub description: String,
    /// Its level.
    pub level: Level,
    /// The roles whose permissions it has as well, sorted.
    pub inherits: Vec<RoleName>,
    /// The names of the permissions that it grants itself, sorted. Those that nobody declares any more have no effect.
    pub permissions: Vec<String>,
    /// Incremented with each change; the etag is derived from it.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Role {
    /// Whether every mesh has it.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        [ADMIN, MANAGER, MEMBER].contains(&self.name.as_str())
    }
}
