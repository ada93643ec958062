//! The database and the Redis in the [`Context`] of a service.

use drystone_mesh::{
    health::Kind,
    module::{Context, StartError},
};

use crate::{
    Db,
    redis::{self, Redis, SharedRedis},
};

/// Access to the resources that the binary has opened for a service.
pub trait ContextExt {
    /// The database of the service, with an up-to-date schema.
    ///
    /// # Errors
    /// The service has no migrations, or its configuration needs no database.
    fn database(&self) -> Result<Db, StartError>;

    /// The Redis of the process. Spawns a probe that reports its health as the component `NAME LABEL`.
    ///
    /// # Errors
    /// No Redis is configured, or its configuration is invalid.
    fn redis(&self, label: &str, kind: Kind) -> Result<Redis, StartError>;
}

impl<C> ContextExt for Context<C> {
    fn database(&self) -> Result<Db, StartError> {
        let database = self.resources.get::<Db>().cloned();
        database
            .ok_or_else(|| format!("the service `{}` has no database, since it has no migrations", self.name).into())
    }

    fn redis(&self, label: &str, kind: Kind) -> Result<Redis, StartError> {
        let shared = self.resources.get::<SharedRedis>().ok_or("no Redis is configured; set redis.url")?;
        let redis = shared.get()?;
        let component = self.shared.health.component(format!("{} {label}", self.name), kind);
        self.tasks.spawn(redis::probe(redis.clone(), component, self.stop.clone()));
        Ok(redis)
    }
}
