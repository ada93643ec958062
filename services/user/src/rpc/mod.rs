//! The RPCs, one file a gRPC service, and what their messages are made of.

mod user_service;

use drystone::user::v1::User;
use drystone_mesh::{
    error::{Error, Result},
    store::{etag, time::to_proto},
};
use uuid::Uuid;

use crate::Account;

/// The id in this field. The contract has seen to its form already, except where an empty one stands for none.
fn parse_id(field: &'static str, text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| Error::invalid_field(field, "must be a UUID"))
}

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
