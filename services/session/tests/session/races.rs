//! Concurrent rotations of one session, through two instances, on each store.

use std::sync::Arc;

use chrono::TimeDelta;
use drystone_backends::Postgres;
use drystone_mesh::{clock::Clock, config::ConfigDuration};
use drystone_session::{
    FIRST_COUNTER, Lifetimes, MAX_REPEATS, MIGRATIONS, NewSession, PresentedBy, RedisStore, Rotation, SessionStore,
    SqlStore,
};
use drystone_store::{
    Db, Location,
    redis::{Config, Redis},
};
use tokio::task::JoinSet;
use uuid::Uuid;

const LIFETIMES: Lifetimes = Lifetimes {
    idle_timeout: TimeDelta::days(14),
    lifetime: TimeDelta::days(90),
    rotation_grace: TimeDelta::seconds(10),
    token_lifetime_max: TimeDelta::hours(1),
};

const CLIENTS: usize = 64;
const ROUNDS: u64 = 100;

type Store = Arc<dyn SessionStore>;

/// In each round, all clients present the same token. One advances the session, others get the same successor, the rest is
/// told to refresh less often, and the next round uses the successor.
async fn rotate_concurrently(instances: [Store; 2]) {
    let clock = Clock::system();
    let new =
        NewSession { user_id: Uuid::now_v7(), device: String::new(), address: String::new(), methods: Vec::new() };
    let session = LIFETIMES.start(new, clock.now());
    instances[0].insert(&session).await.unwrap();
    for counter in (0..ROUNDS).map(|round| FIRST_COUNTER + round) {
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (store, clock, id) = (instances[client % 2].clone(), clock.clone(), session.id);
            clients.spawn(async move {
                let by = PresentedBy::default();
                store.rotate(id, counter, &by, &LIFETIMES, clock.now()).await.unwrap()
            });
        }
        let (mut advanced, mut repeated, mut refused) = (0, 0, 0);
        while let Some(rotation) = clients.join_next().await {
            let next = match rotation.unwrap() {
                Rotation::Advanced(session) => {
                    advanced += 1;
                    session
                }
                Rotation::Repeated(session) => {
                    repeated += 1;
                    session
                }
                Rotation::RepeatedTooOften(session) => {
                    refused += 1;
                    session
                }
                other => panic!("{other:?} in round {counter}"),
            };
            assert_eq!(next.counter, counter + 1);
        }
        assert_eq!((advanced, repeated), (1, MAX_REPEATS as usize), "round {counter}");
        assert_eq!(refused, CLIENTS - 1 - MAX_REPEATS as usize);
    }
    assert_eq!(instances[1].newest_revocation().await.unwrap(), 0, "no session was revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_rotations_get_one_successor_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(&directory.path().join("session.db"), MIGRATIONS).await.unwrap();
    let store: Store = Arc::new(SqlStore::new(db));
    rotate_concurrently([store.clone(), store]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_rotations_get_one_successor_on_postgres() {
    let database = Postgres::shared().await.database().await;
    let open = async || {
        let db = Db::open(Location::server("session", database.as_str()).unwrap(), MIGRATIONS).await.unwrap();
        Arc::new(SqlStore::new(db)) as Store
    };
    rotate_concurrently([open().await, open().await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_rotations_get_one_successor_on_redis() {
    let server = drystone_backends::Redis::shared();
    let url = server.url().to_owned().into();
    let config = Config { url, prefix: server.prefix(), timeout: ConfigDuration::seconds(5), ..Config::default() };
    let open = async || {
        let redis = Redis::open(&config).unwrap();
        redis.ready().await;
        Arc::new(RedisStore::new(redis)) as Store
    };
    rotate_concurrently([open().await, open().await]).await;
}
