//! No query of the store scans a whole table on PostgreSQL, except for the count of active sessions, which must: the
//! server's statistics prove it.

use chrono::TimeDelta;
use drystone_backends::Postgres;
use drystone_mesh::{clock::Clock, page::Page};
use drystone_session::{FIRST_COUNTER, Holder, Lifetimes, MIGRATIONS, NewSession, PresentedBy, SessionStore, SqlStore};
use drystone_store::{Db, Location, PoolConfig};
use uuid::Uuid;

const LIFETIMES: Lifetimes = Lifetimes {
    idle_timeout: TimeDelta::days(14),
    lifetime: TimeDelta::days(90),
    rotation_grace: TimeDelta::seconds(10),
    token_lifetime_max: TimeDelta::hours(1),
};

/// More executions than PostgreSQL makes custom plans for (five), so that it uses a generic plan where it thinks that cheaper.
const ROUNDS: usize = 8;

/// Sessions and revocations that never expire, except for some that the sweep deletes.
const ROWS: &str = "
    SET search_path = drystone_session;
    INSERT INTO session
        (id, user_id, device, address, created_at, last_seen_at, idle_expires_at, expires_at, counter)
    SELECT gen_random_uuid(), gen_random_uuid(), 'curl/8.5.0', '192.0.2.7', n, n,
        CASE WHEN n % 100 = 0 THEN n ELSE 9000000000000000000 END, 9000000000000000000, 1
    FROM generate_series(1, 20000) AS n;
    INSERT INTO revocation (seq, session_id, forget_at)
    SELECT n, gen_random_uuid(), CASE WHEN n % 100 = 0 THEN n ELSE 9000000000000000000 END
    FROM generate_series(1, 20000) AS n;
    UPDATE revocation_counter SET newest = 20000;
    ANALYZE";

#[tokio::test]
async fn every_query_of_sessions_and_revocations_uses_an_index() {
    let database = Postgres::shared().await.database().await;
    let location = Location::server("session", database.as_str())
        .unwrap()
        // Each connection has plans of its own.
        .with_pool(PoolConfig { connections: 1, ..PoolConfig::default() });
    Db::open(location.clone(), MIGRATIONS).await.unwrap().close().await;
    database.run(ROWS).await;
    database.reset_scan_counts().await;

    let db = Db::open(location, MIGRATIONS).await.unwrap();
    let store = SqlStore::new(db.clone());
    let now = Clock::system().now();
    for _ in 0..ROUNDS {
        let user = Uuid::now_v7();
        let mut sessions = Vec::new();
        for _ in 0..3 {
            let session = LIFETIMES.start(
                NewSession { user_id: user, device: String::new(), address: String::new(), methods: Vec::new() },
                now,
            );
            store.insert(&session).await.unwrap();
            sessions.push(session.id);
        }
        for counter in [FIRST_COUNTER, FIRST_COUNTER, FIRST_COUNTER + 1, FIRST_COUNTER] {
            store.rotate(sessions[0], counter, &PresentedBy::default(), &LIFETIMES, now).await.unwrap();
        }
        store.list(user, &Page { size: 50, after: None }, now).await.unwrap();
        assert_eq!(store.count_of_user(user, now).await.unwrap(), 2);
        store.end(user, sessions[1], &LIFETIMES, now).await.unwrap();
        store.end_all(user, None, &LIFETIMES, now).await.unwrap();
        let newest = store.void_tokens(&[Holder::User(user)], &LIFETIMES, now).await.unwrap();
        assert_eq!(store.newest_revocation().await.unwrap(), newest);
        store.revocations_after(newest - 3, 1000, now).await.unwrap();
        store.sweep(now, now).await.unwrap();
    }
    db.close().await;
    let scans = database.scans("drystone_session").await;
    assert_eq!((scans["session"].sequential, scans["revocation"].sequential), (0, 0), "{scans:?}");
    assert!(scans["session"].index >= i64::try_from(ROUNDS * 9).unwrap(), "{scans:?}");
}
