//! The service as a module of a binary.

use drystone_mesh::{
    module::{Context, Service as Module, StartError, Started},
    server::Server,
};
use drystone_store::{ContextExt, Migration};

use crate::{Config, Deps, MIGRATIONS, NAME, PropertyStore, Quota, Service, sweep};

impl Module for Service {
    const NAME: &'static str = NAME;
    const MIGRATIONS: &'static [Migration] = MIGRATIONS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), String> {
        config.check()
    }

    async fn start(context: Context<Config>) -> Result<Started, StartError> {
        let node = context.node()?;
        let store = PropertyStore::new(context.database()?, Quota::from(&context.config));
        node.tasks.spawn(sweep::run(store.clone(), node.clock.clone(), node.stop.clone()));
        let service = Self::new(Deps { store, clock: node.clock.clone() });
        Ok(Server::new(&node)?.add_service(service.into_server()).into())
    }
}
