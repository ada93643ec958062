//! Who may see and change an account, beyond what the contract's rules settle.

use drystone_mesh::token::Principal;
use uuid::Uuid;

use crate::Error;

/// Read every account.
pub const USERS_READ: &str = "users:read";
/// Change every account.
pub const USERS_WRITE: &str = "users:write";

/// A user sees their own account, and everyone's with [`USERS_READ`].
///
/// # Errors
/// [`Error::NotFound`]: an account that one may not see is not there.
pub fn may_read(user: &Principal, account: Uuid) -> Result<(), Error> {
    if user.user_id == account || user.has_permission(USERS_READ) { Ok(()) } else { Err(Error::NotFound) }
}

/// A user changes their own account, and everyone's with [`USERS_WRITE`].
///
/// # Errors
/// [`Error::PermissionMissing`] for an account that the user may at least see, [`Error::NotFound`] for any other.
pub fn may_write(user: &Principal, account: Uuid) -> Result<(), Error> {
    if user.user_id == account || user.has_permission(USERS_WRITE) {
        return Ok(());
    }
    may_read(user, account)?;
    Err(Error::PermissionMissing(USERS_WRITE))
}
