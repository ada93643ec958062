//! The service as a module of a binary.

use drystone::session::v1::session_service_client::SessionServiceClient;
use drystone_mesh::{
    module::{Context, NoConfig, Service as Module, StartError, Started},
    server::Server,
};
use drystone_store::{ContextExt, Migration};

use crate::{Deps, MIGRATIONS, NAME, Permissions, Service, UserStore};

impl Module for Service {
    const NAME: &'static str = NAME;
    const MIGRATIONS: &'static [Migration] = MIGRATIONS;
    type Config = NoConfig;

    async fn start(context: Context<NoConfig>) -> Result<Started, StartError> {
        let node = context.node()?;
        let service = Self::new(Deps {
            store: UserStore::new(context.database()?),
            sessions: SessionServiceClient::new(node.dialer.channel("session")?),
            permissions: Permissions::of(&node.contracts),
            clock: node.clock.clone(),
            metrics: node.metrics.clone(),
            tasks: node.tasks.clone(),
            stop: node.stop.clone(),
        });
        Ok(Server::new(&node)?.add_service(service.into_server()).into())
    }
}
