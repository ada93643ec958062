//! The errors of this service, and the reason of each.

use std::time::Duration;

use drystone_mesh::{
    error::{Error as MeshError, Reason},
    etag,
};
use tonic::Status;

use crate::role::{InvalidRole, Refused, definitions::MAX_TOKEN_PERMISSIONS};

/// An error of the user service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another account has the e-mail address.
    #[error("another account has this e-mail address; sign in, or use a different one")]
    EmailTaken,
    /// The id belongs to an account with another e-mail address.
    #[error(
        "this user id belongs to an account with another e-mail address, or to one that was removed; generate a new id"
    )]
    IdTaken,
    /// No such account, or one that the user may not read.
    #[error("there is no such account, or you may not read it")]
    NotFound,
    /// The request id was used for another request.
    #[error("this request id was used for another request; generate a new one")]
    RequestIdReused,
    /// The administrator has used too many request ids.
    #[error("you have used 10,000 request ids in 24 hours; create without one, or wait")]
    TooManyRequestIds,
    /// The account is deleted.
    #[error("the account is deleted; restore it first with `UndeleteUser`")]
    Deleted,
    /// The account is not deleted.
    #[error("the account is not deleted; delete it first with `DeleteUser`")]
    NotDeleted,
    /// Another account is linked to the Telegram user.
    #[error("another account is linked to this Telegram user; end that link first")]
    TelegramIdTaken,
    /// The account or role has changed since its etag was read.
    #[error("it has changed since its etag was read")]
    Stale,
    /// The user may read the account, but not change it.
    #[error("this requires the permission `{0}`")]
    PermissionMissing(&'static str),
    /// No such role.
    #[error("there is no such role; `ListRoles` has them")]
    RoleNotFound,
    /// There is a role with this name.
    #[error("there is a role with this name; choose another one")]
    RoleExists,
    /// Users have the role, or roles inherit it.
    #[error("the role is in use: users have it, or roles inherit it; set `force` to take it away from all of them")]
    RoleInUse,
    /// `member` is neither granted nor revoked.
    #[error("everybody has `member`; it is neither granted nor revoked")]
    Everybody,
    /// The role cannot be as the request wants it.
    #[error(transparent)]
    InvalidRole(#[from] InvalidRole),
    /// The actor may not do it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No administrator would be left.
    #[error(
        "nobody else has the role `admin` without an expiry and without a denied permission; make another user administrator first"
    )]
    LastAdministrator,
    /// No such permission.
    #[error("there is no permission `{0}`; `ListPermissions` has them")]
    UnknownPermission(String),
    /// A contract declares the permission, or another workload has registered it.
    #[error("{} the permission `{name}` already; choose another name", match by {
        Some(workload) => format!("the workload `{workload}` has registered"),
        None => "a contract declares".to_owned(),
    })]
    PermissionExists {
        /// The permission.
        name: String,
        /// The workload.
        by: Option<String>,
    },
    /// A role names the permission, which nobody declares.
    #[error("a role names the permission `{0}`, which nobody declares; an administrator takes it from the role first")]
    PermissionDormant(String),
    /// All permissions together would not fit into a token.
    #[error(
        "all permissions together would have {size} bytes, and a token may have {MAX_TOKEN_PERMISSIONS}; register fewer or with shorter names"
    )]
    TooManyPermissions {
        /// The size in bytes.
        size: usize,
    },
    /// The user has as many as they may have.
    #[error("a user has at most {max} {what}; remove others first, also expired ones")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The maximum.
        max: usize,
    },
    /// A change was saved, and tokens from before are not void yet.
    #[error(
        "the change is saved, and tokens from before will be void as soon as the session service answers; retry the call to wait for it"
    )]
    TokensNotVoided,
    /// The store failed.
    #[error("the account store failed")]
    Store(#[from] sqlx::Error),
}

impl From<Error> for MeshError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::EmailTaken => Self::new(Reason::EmailTaken, message),
            Error::IdTaken | Error::RequestIdReused => Self::new(Reason::RequestIdReused, message),
            Error::TooManyRequestIds => Self::new(Reason::QuotaExceeded, message),
            Error::NotFound => Self::new(Reason::UserNotFound, message),
            Error::Deleted => Self::new(Reason::UserDeleted, message),
            Error::NotDeleted => Self::new(Reason::UserNotDeleted, message),
            Error::TelegramIdTaken => Self::new(Reason::TelegramIdTaken, message),
            Error::Stale => etag::stale(),
            Error::PermissionMissing(_) | Error::Refused(Refused::PermissionMissing(_)) => {
                Self::new(Reason::PermissionMissing, message)
            }
            Error::RoleNotFound => Self::new(Reason::RoleNotFound, message),
            Error::RoleExists => Self::new(Reason::RoleExists, message),
            Error::RoleInUse => Self::new(Reason::RoleInUse, message),
            Error::Everybody => Self::invalid_field("role", message),
            Error::InvalidRole(InvalidRole::UnknownRole(_) | InvalidRole::Cycle(_) | InvalidRole::TooDeep(_)) => {
                Self::invalid_field("role.inherits", message)
            }
            Error::InvalidRole(InvalidRole::InheritsHigher { .. }) => Self::invalid_field("role.level", message),
            Error::InvalidRole(InvalidRole::UnknownPermission(_)) => Self::invalid_field("role.permissions", message),
            Error::InvalidRole(InvalidRole::TooMany) | Error::TooManyPermissions { .. } | Error::TooMany { .. } => {
                Self::new(Reason::QuotaExceeded, message)
            }
            Error::Refused(_) => Self::new(Reason::AuthorityExceeded, message),
            Error::LastAdministrator => Self::new(Reason::LastAdministrator, message),
            Error::UnknownPermission(_) => Self::invalid_field("permission", message),
            Error::PermissionExists { .. } | Error::PermissionDormant(_) => {
                Self::new(Reason::PermissionExists, message)
            }
            Error::TokensNotVoided => Self::new(Reason::Unavailable, message).retry_after(Duration::from_secs(1)),
            Error::Store(cause) => drystone_store::to_mesh_error(cause),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        MeshError::from(error).into()
    }
}
