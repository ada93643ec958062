//! Who may read and change an account, beyond the rules of the contract.

use drystone_mesh::token::Principal;
use uuid::Uuid;

use crate::Error;

/// Read every account.
pub const USERS_READ: &str = "users:read";
/// Change every account.
pub const USERS_WRITE: &str = "users:write";

/// A user may read their own account, and every account with [`USERS_READ`].
///
/// # Errors
/// [`Error::NotFound`], so that the existence of an account is not revealed.
pub fn may_read(user: &Principal, account: Uuid) -> Result<(), Error> {
    if user.user_id == account || user.has_permission(USERS_READ) { Ok(()) } else { Err(Error::NotFound) }
}

/// A user may change their own account, and every account with [`USERS_WRITE`].
///
/// # Errors
/// [`Error::PermissionMissing`] for an account that the user may read, [`Error::NotFound`] for any other.
pub fn may_write(user: &Principal, account: Uuid) -> Result<(), Error> {
    if user.user_id == account || user.has_permission(USERS_WRITE) {
        return Ok(());
    }
    may_read(user, account)?;
    Err(Error::PermissionMissing(USERS_WRITE))
}
