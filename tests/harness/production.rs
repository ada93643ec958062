//! A mesh like one in production: two instances of each service, on PostgreSQL and Redis.

use std::{
    ops::{Deref, DerefMut},
    thread,
};

use drystone_backends::{Database, Postgres, Redis};
use tokio::sync::{Mutex, MutexGuard};

use crate::{Cluster, services_on_postgres};

/// Instances of each service.
const INSTANCES: usize = 2;

/// Two instances of each service, on temporary servers.
#[derive(Debug)]
pub struct Production {
    /// The mesh.
    pub cluster: Cluster,
    _database: Database,
    /// The database of all services except session.
    pub postgres: Postgres,
    /// Sessions, revocations and rate limits.
    pub redis: Redis,
}

/// Exclusive access to the mesh that the tests of one binary share. The mesh is healthy when a test gets it; a test that
/// fails discards it.
#[derive(Debug)]
pub struct ProductionGuard(MutexGuard<'static, Option<Production>>);

impl Production {
    /// Waits for exclusive access to the shared mesh, and starts what does not run.
    pub async fn lock() -> ProductionGuard {
        static SHARED: Mutex<Option<Production>> = Mutex::const_new(None);
        let mut shared = SHARED.lock().await;
        match &*shared {
            Some(production) => production.cluster.start_missing().await,
            None => *shared = Some(Self::start().await),
        }
        ProductionGuard(shared)
    }

    async fn start() -> Self {
        let postgres = Postgres::temporary().await;
        let database = postgres.database().await;
        let redis = Redis::start();
        let prefix = redis.prefix();
        let settings = [
            ("session.store", "redis"),
            ("limits.store", "redis"),
            ("redis.url", redis.url()),
            ("redis.prefix", &prefix),
            // Test machines are slow under load.
            ("redis.timeout", "5s"),
            ("session.acknowledgement_timeout", "5s"),
            ("certificates.check_interval", "500ms"),
            // The audit lines of a load would hide the others.
            ("log.filter", "info,audit=off"),
        ];
        let databases = services_on_postgres().into_iter().flat_map(|name| {
            let timeout = (format!("{name}.database.pool.acquire_timeout"), "3s");
            [(format!("{name}.database.url"), database.as_str()), timeout]
        });
        let databases: Vec<_> = databases.collect();
        let databases = databases.iter().map(|(key, value)| (key.as_str(), *value));
        let settings: Vec<_> = settings.into_iter().chain(databases).collect();
        let cluster = Cluster::start(INSTANCES, &settings).await;
        Self { cluster, _database: database, postgres, redis }
    }
}

impl Deref for ProductionGuard {
    type Target = Production;

    fn deref(&self) -> &Production {
        self.0.as_ref().expect("the mesh has been started")
    }
}

impl DerefMut for ProductionGuard {
    fn deref_mut(&mut self) -> &mut Production {
        self.0.as_mut().expect("the mesh has been started")
    }
}

impl Drop for ProductionGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            *self.0 = None;
        }
    }
}
