//! The RPCs, one file per gRPC service, and the conversions to their messages.

mod user_service;

use drystone::user::v1::User;
use drystone_mesh::{etag, time::to_proto};

use crate::Account;

impl From<Account> for User {
    fn from(account: Account) -> Self {
        Self {
            id: account.id.to_string(),
            email: account.email.into_string(),
            display_name: account.display_name.into_string(),
            roles: account.roles.names(),
            etag: etag::format(account.version),
            create_time: Some(to_proto(account.created_at)),
            update_time: Some(to_proto(account.updated_at)),
        }
    }
}
