//! The service as a module of a binary.

use drystone_mesh::{
    module::{Context, NoConfig, Service as Module, StartError, Started},
    server::Server,
};
use drystone_store::{ContextExt, Migration};

use crate::{Deps, MIGRATIONS, NAME, PropertyStore, Service};

impl Module for Service {
    const NAME: &'static str = NAME;
    const MIGRATIONS: &'static [Migration] = MIGRATIONS;
    type Config = NoConfig;

    async fn start(context: Context<NoConfig>) -> Result<Started, StartError> {
        let node = context.node()?;
        let store = PropertyStore::new(context.database()?);
        let service = Self::new(Deps { store, clock: node.clock.clone() });
        Ok(Server::new(&node)?.add_service(service.into_server()).into())
    }
}
