//! What a service with data finds in its [`Context`].

use drystone_mesh::{
    health::Kind,
    module::{Context, StartError},
};

use crate::{
    Db,
    redis::{self, Redis, SharedRedis},
};

/// What the binary has opened for a service.
pub trait ContextExt {
    /// Its database, with its schema up to date.
    ///
    /// # Errors
    /// It has no migrations, or says that it needs no database.
    fn database(&self) -> Result<Db, StartError>;

    /// The Redis of the process, whose health is reported as the component `NAME WHAT` until the stop.
    ///
    /// # Errors
    /// The configuration names no Redis.
    fn redis(&self, what: &str, kind: Kind) -> Result<Redis, StartError>;
}

impl<C> ContextExt for Context<C> {
    fn database(&self) -> Result<Db, StartError> {
        let database = self.resources.get::<Db>().cloned();
        database.ok_or_else(|| format!("the service `{}` has no migrations and so no database", self.name).into())
    }

    fn redis(&self, what: &str, kind: Kind) -> Result<Redis, StartError> {
        let shared = self.resources.get::<SharedRedis>().ok_or("no Redis is configured; set redis.url")?;
        let redis = shared.get()?;
        let component = self.shared.health.component(format!("{} {what}", self.name), kind);
        self.tasks.spawn(redis::probe(redis.clone(), component, self.stop.clone()));
        Ok(redis)
    }
}
