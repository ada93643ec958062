//! The service as a module of a binary.

use drystone::{
    auth::v1::auth_service_client::AuthServiceClient, contract::Contracts,
    notification::v1::notification_service_client::NotificationServiceClient,
    property::v1::property_service_client::PropertyServiceClient,
    session::v1::session_service_client::SessionServiceClient,
};
use drystone_mesh::{
    module::{Context, Service as Module, StartError, Started},
    server::Server,
};
use drystone_store::{ContextExt, Migration};

use crate::{
    Config, Deps, MIGRATIONS, NAME, Service, UserStore,
    role::{
        Permission,
        definitions::{MAX_TOKEN_PERMISSIONS, token_size},
    },
};

impl Module for Service {
    const NAME: &'static str = NAME;
    const MIGRATIONS: &'static [Migration] = MIGRATIONS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), String> {
        config.check()
    }

    async fn start(context: Context<Config>) -> Result<Started, StartError> {
        let node = context.node()?;
        let declared = declared(&node.contracts)?;
        let service = Self::new(Deps {
            store: UserStore::new(context.database()?, declared),
            sessions: SessionServiceClient::new(node.dialer.channel("session")?),
            auth: AuthServiceClient::new(node.dialer.channel("auth")?),
            properties: PropertyServiceClient::new(node.dialer.channel("property")?),
            notifications: NotificationServiceClient::new(node.dialer.channel("notification")?),
            config: context.config,
            clock: node.clock.clone(),
            metrics: node.metrics.clone(),
            tasks: node.tasks.clone(),
            stop: node.stop.clone(),
        });
        let (users, roles) = service.into_servers();
        Ok(Server::new(&node)?.add_service(users).add_service(roles).into())
    }
}

/// The permissions that the contracts declare.
///
/// # Errors
/// They do not fit into a token.
fn declared(contracts: &Contracts) -> Result<Vec<Permission>, StartError> {
    let declared = contracts.permissions().iter();
    let declared: Vec<_> = declared
        .map(|permission| Permission {
            name: permission.name.clone(),
            description: permission.description.clone(),
            registered_by: None,
        })
        .collect();
    let size = token_size(declared.iter().map(|permission| permission.name.as_str()));
    if size > MAX_TOKEN_PERMISSIONS {
        return Err(format!(
            "the contracts declare permissions of {size} bytes, and a token may have {MAX_TOKEN_PERMISSIONS}; declare fewer or with \
             shorter names"
        )
        .into());
    }
    Ok(declared)
}
