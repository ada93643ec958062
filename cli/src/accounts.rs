//! Accounts and roles, as the commands `users` and `roles` call and show them.

use std::collections::BTreeMap;

use anyhow::Result;
use drystone::auth::v1::auth_service_client::AuthServiceClient;
use drystone::user::v1::{
    GetUserByEmailRequest, GetUserRequest, GrantRoleRequest, Role, User, UserStatus,
    role_service_client::RoleServiceClient, user_service_client::UserServiceClient,
};
use drystone_mesh::{client::Channel, time::from_proto};
use serde::Serialize;

use crate::{
    App,
    config::{Config, ConfigFile},
    operator::{self, Operator},
};

/// The clients of the services that have accounts, as the operator.
pub(crate) struct Accounts {
    pub(crate) users: UserServiceClient<Channel>,
    pub(crate) roles: RoleServiceClient<Channel>,
    pub(crate) auth: AuthServiceClient<Channel>,
    _operator: Operator,
}

impl Accounts {
    /// Must be called within a Tokio runtime.
    pub(crate) fn connect(app: &App, config: &ConfigFile) -> Result<Self> {
        let operator = Operator::connect(app, &Config::load(app, &config.sources())?)?;
        let channel = operator.channel(drystone_user::NAME)?;
        let (users, roles) = (UserServiceClient::new(channel.clone()), RoleServiceClient::new(channel));
        let auth = AuthServiceClient::new(operator.channel(drystone_auth::NAME)?);
        Ok(Self { users, roles, auth, _operator: operator })
    }

    /// The account with this e-mail address or id.
    pub(crate) async fn find(&mut self, who: &str) -> Result<User> {
        let found = if who.contains('@') {
            self.users.get_user_by_email(GetUserByEmailRequest { email: who.to_owned() }).await
        } else {
            self.users.get_user(GetUserRequest { id: who.to_owned() }).await
        };
        Ok(found.map_err(|status| operator::failure(&status))?.into_inner())
    }

    /// Grants a role, and returns the sentence that says so.
    pub(crate) async fn grant(&mut self, who: &str, role: &str) -> Result<String> {
        let user = self.find(who).await?;
        let request = GrantRoleRequest { user_id: user.id, role: role.to_owned(), expire_time: None };
        self.roles.grant_role(request).await.map_err(|status| operator::failure(&status))?;
        Ok(format!("{} has the role `{role}`; access tokens from before are void\n", user.email))
    }
}

/// An account as JSON, with the names of the REST API.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserView {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) display_name: String,
    pub(crate) roles: Vec<String>,
    pub(crate) status: String,
    pub(crate) create_time: String,
    pub(crate) update_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) given_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) family_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) phone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) locale: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) time_zone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) avatar: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) preferences: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) telegram_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) delete_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) purge_time: String,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            status: status_name(user.status()),
            id: user.id,
            email: user.email,
            display_name: user.display_name,
            roles: user.roles,
            create_time: time(user.create_time.as_ref()),
            update_time: time(user.update_time.as_ref()),
            given_name: user.given_name,
            family_name: user.family_name,
            phone: user.phone,
            locale: user.locale,
            time_zone: user.time_zone,
            avatar: user.avatar,
            preferences: user.preferences.into_iter().collect(),
            telegram_id: if user.telegram_id == 0 { String::new() } else { user.telegram_id.to_string() },
            delete_time: time(user.delete_time.as_ref()),
            purge_time: time(user.purge_time.as_ref()),
        }
    }
}

/// A role as JSON, with the names of the REST API.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoleView {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) level: i32,
    pub(crate) inherits: Vec<String>,
    pub(crate) permissions: Vec<String>,
    pub(crate) built_in: bool,
}

impl From<Role> for RoleView {
    fn from(role: Role) -> Self {
        let Role { name, description, level, inherits, permissions, built_in, .. } = role;
        Self { name, description, level, inherits, permissions, built_in }
    }
}

/// A status as it is in filters: `active`.
pub(crate) fn status_name(status: UserStatus) -> String {
    status.as_str_name().trim_start_matches("USER_STATUS_").to_lowercase()
}

/// A time as text (RFC 3339), to the second; empty if there is none.
pub(crate) fn time(time: Option<&prost_types::Timestamp>) -> String {
    let time = time.and_then(from_proto);
    time.map_or_else(String::new, |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}
