//! The service as a module of a binary.

use std::sync::Arc;

use drystone_mesh::{
    health::Kind,
    module::{Context, Service as Module, StartError, Started},
    server::Server,
};
use drystone_store::{ContextExt, Migration};

use crate::{Config, Deps, MIGRATIONS, NAME, RedisStore, Service, SessionStore, SqlStore, StoreKind};

impl Module for Service {
    const NAME: &'static str = NAME;
    const MIGRATIONS: &'static [Migration] = MIGRATIONS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), String> {
        config.check()
    }

    fn needs_database(config: &Config) -> bool {
        config.store == StoreKind::Sql
    }

    fn needs_redis(config: &Config) -> Option<&'static str> {
        (config.store == StoreKind::Redis).then_some("store")
    }

    async fn start(context: Context<Config>) -> Result<Started, StartError> {
        let node = context.node()?;
        let store: Arc<dyn SessionStore> = match context.config.store {
            StoreKind::Sql => Arc::new(SqlStore::new(context.database()?)),
            StoreKind::Redis => Arc::new(RedisStore::new(context.redis("redis", Kind::Vital)?)),
        };
        let service = Self::new(Deps {
            store,
            clock: node.clock.clone(),
            metrics: node.metrics.clone(),
            config: context.config,
            tasks: node.tasks.clone(),
            stop: context.stop_serving,
        });
        Ok(Server::new(&node)?.add_service(service.into_server()).into())
    }
}
