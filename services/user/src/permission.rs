//! The permissions that this service knows, and who may read and change an account, beyond the rules of the contract.

use drystone_mesh::call::Actor;
use uuid::Uuid;

use crate::Error;

/// Read every account.
pub const USERS_READ: &str = "users:read";
/// Change every account.
pub const USERS_WRITE: &str = "users:write";
/// Read roles, permissions and who has them.
pub const ROLES_READ: &str = "roles:read";
/// Change roles.
pub const ROLES_WRITE: &str = "roles:write";
/// Grant and revoke roles, and set overrides.
pub const ROLES_GRANT: &str = "roles:grant";
/// Reset the second factors of users. The auth service declares it, and asks here whose.
pub const FACTORS_RESET: &str = "factors:reset";

/// A user may read their own account, and every account with [`USERS_READ`]. The operator may read every account.
///
/// # Errors
/// [`Error::NotFound`], so that the existence of an account is not revealed.
pub fn may_read(actor: Actor<'_>, account: Uuid) -> Result<(), Error> {
    if may(actor, account, USERS_READ) { Ok(()) } else { Err(Error::NotFound) }
}

/// A user may change their own account, and every account with [`USERS_WRITE`]. The operator may change every account.
///
/// # Errors
/// [`Error::PermissionMissing`] for an account that the user may read, [`Error::NotFound`] for any other.
pub fn may_write(actor: Actor<'_>, account: Uuid) -> Result<(), Error> {
    if may(actor, account, USERS_WRITE) {
        return Ok(());
    }
    may_read(actor, account)?;
    Err(Error::PermissionMissing(USERS_WRITE))
}

fn may(actor: Actor<'_>, account: Uuid, permission: &str) -> bool {
    match actor {
        Actor::Operator => true,
        Actor::User(user) => user.user_id == account || user.has_permission(permission),
    }
}
