//! The database, the sealer and the Redis in the [`Context`] of a service.

use std::{sync::Arc, time::Duration};

use drystone_mesh::{
    backoff::Backoff,
    health::Kind,
    module::{Context, StartError},
};

use crate::{
    Db, Failure,
    redis::{self, Redis, SharedRedis},
    sealing::{self, CheckError, KeyEncryption, SealError, Sealer},
};

/// The bounds of the backoff while the master key or the database is unavailable.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Access to the resources that the binary has opened for a service.
pub trait ContextExt {
    /// The database of the service, with an up-to-date schema.
    ///
    /// # Errors
    /// The service has no migrations, or its configuration needs no database.
    fn database(&self) -> Result<Db, StartError>;

    /// The sealer of the service's database. Waits while a key management service or the database is unavailable, which the
    /// vital component `NAME master key` reports.
    ///
    /// # Errors
    /// No master key is configured, or another one seals the database.
    fn sealer(&self) -> impl Future<Output = Result<Sealer, StartError>> + Send;

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

    fn sealer(&self) -> impl Future<Output = Result<Sealer, StartError>> + Send {
        let keys = self.resources.get::<Arc<dyn KeyEncryption>>().cloned();
        let (name, database) = (self.name, self.database());
        let component = self.shared.health.component(format!("{name} master key"), Kind::Vital);
        async move {
            let keys = keys.ok_or_else(|| no_master_key(name))?;
            let (db, sealer) = (database?, Sealer::new(keys));
            let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
            loop {
                match sealing::check(&db, &sealer).await {
                    Ok(()) => {
                        component.up();
                        return Ok(sealer);
                    }
                    Err(error) if is_temporary(&error) => {
                        component.down(error.to_string());
                        tracing::warn!(service = name, %error, "waiting for the master key");
                    }
                    Err(error) => return Err(format!("the database of `{name}` cannot be used: {error}").into()),
                }
                tokio::time::sleep(backoff.failed()).await;
            }
        }
    }

    fn redis(&self, label: &str, kind: Kind) -> Result<Redis, StartError> {
        let shared = self.resources.get::<SharedRedis>().ok_or("no Redis is configured; set redis.url")?;
        let redis = shared.get()?;
        let component = self.shared.health.component(format!("{} {label}", self.name), kind);
        self.tasks.spawn(redis::probe(redis.clone(), component, self.stop.clone()));
        Ok(redis)
    }
}

/// The sentence for a service that seals values and has no master key.
#[must_use]
pub fn no_master_key(service: &str) -> String {
    format!(
        "the service `{service}` encrypts secrets in its database and has no master key; run `drystone keys generate FILE` once, \
         and set sealing.key_file to that file, or sealing.vault.address"
    )
}

fn is_temporary(error: &CheckError) -> bool {
    match error {
        CheckError::Store(error) => Failure::of(error) == Failure::Unavailable,
        CheckError::Seal(error) => matches!(error, SealError::Unavailable(_)),
    }
}
