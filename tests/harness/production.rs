//! A mesh as production has it: two of each, on PostgreSQL and Redis.

use std::{
    ops::{Deref, DerefMut},
    thread,
};

use drystone_backends::{Database, Postgres, Redis};
use tokio::sync::{Mutex, MutexGuard};

use crate::{Cluster, services_on_postgres};

/// How many there are of each.
const INSTANCES: usize = 2;

/// Two of each, on servers of their own.
#[derive(Debug)]
pub struct Production {
    /// The mesh.
    pub cluster: Cluster,
    _database: Database,
    /// Where all services but session keep what they keep.
    pub postgres: Postgres,
    /// Where sessions, revocations and limits are.
    pub redis: Redis,
}

/// The mesh that the tests of one file share, for one of them at a time. It is well when it is handed over; a test that
/// fails leaves it to nobody.
#[derive(Debug)]
pub struct Exclusive(MutexGuard<'static, Option<Production>>);

impl Production {
    /// Waits for one's turn.
    pub async fn exclusively() -> Exclusive {
        static SHARED: Mutex<Option<Production>> = Mutex::const_new(None);
        let mut shared = SHARED.lock().await;
        match &*shared {
            Some(production) => production.cluster.complete().await,
            None => *shared = Some(Self::start().await),
        }
        Exclusive(shared)
    }

    async fn start() -> Self {
        let postgres = Postgres::throw_away().await;
        let database = postgres.database().await;
        let redis = Redis::start();
        let prefix = redis.prefix();
        let settings = [
            ("session.store", "redis"),
            ("limits.store", "redis"),
            ("redis.url", redis.url()),
            ("redis.prefix", &prefix),
            // What a test machine needs under load is no measure for a time limit.
            ("redis.timeout", "5s"),
            ("session.acknowledgement_timeout", "5s"),
            // The audit of a load would bury what a failure has to tell.
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

impl Deref for Exclusive {
    type Target = Production;

    fn deref(&self) -> &Production {
        self.0.as_ref().expect("it has been started")
    }
}

impl DerefMut for Exclusive {
    fn deref_mut(&mut self) -> &mut Production {
        self.0.as_mut().expect("it has been started")
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if thread::panicking() {
            *self.0 = None;
        }
    }
}
