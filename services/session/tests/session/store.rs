//! The contract of session stores: one suite, run on each store.

mod rotation;

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, TimeDelta};
use drystone_backends::{Database, Postgres, RedisCluster};
use drystone_mesh::{clock::Timestamp, config::ConfigDuration, page::Page};
use drystone_session::{
    Authentication, EndedSessions, FIRST_COUNTER, Holder, KEY_RETENTION, Lifetimes, MIGRATIONS, NewSession,
    PresentedBy, RedisStore, Revocation, Rotation, Scope, Session, SessionStore, SqlStore, Swept,
};
use drystone_store::{
    Db, Location,
    redis::{Config, Redis},
    run,
};
use tempfile::TempDir;
use uuid::Uuid;

use self::rotation::{
    a_counter_is_repeated_a_limited_number_of_times, a_counter_that_was_never_issued_changes_nothing,
    a_rotation_extends_the_idle_expiry_up_to_the_absolute_one, a_superseded_counter_ends_the_session,
    a_used_counter_gets_a_new_successor_while_the_last_one_is_unused, an_expired_or_unknown_session_has_ended,
    an_older_counter_ends_the_session_at_once, concurrent_reuse_of_a_counter_revokes_once,
    concurrent_rotations_of_one_session_have_one_successor, new_successors_are_issued_less_often_after_some,
    repeats_on_consecutive_rotations_are_counted, the_current_counter_advances_the_session,
    the_previous_counter_gets_the_same_successor_within_the_grace_period,
};

const LIFETIMES: Lifetimes = Lifetimes {
    idle_timeout: TimeDelta::days(14),
    lifetime: TimeDelta::days(90),
    rotation_grace: TimeDelta::seconds(10),
    token_lifetime_max: TimeDelta::hours(1),
};

type Store = Arc<dyn SessionStore>;

fn start() -> Timestamp {
    DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap()
}

fn seconds(count: i64) -> TimeDelta {
    TimeDelta::seconds(count)
}

fn all() -> Page {
    Page { size: 200, after: None }
}

async fn add(store: &Store, user_id: Uuid, now: Timestamp) -> Session {
    let new =
        NewSession { user_id, device: "curl/8.5.0".to_owned(), address: "192.0.2.7".to_owned(), methods: Vec::new() };
    let session = LIFETIMES.start(new, now);
    store.insert(&session).await.unwrap();
    session
}

async fn present(store: &Store, session: &Session, counter: u64, now: Timestamp) -> Rotation {
    store.rotate(session.id, counter, &client(), &LIFETIMES, now).await.unwrap()
}

/// The client that refreshes: another than the one that signed in.
fn client() -> PresentedBy {
    PresentedBy { device: "curl/9".to_owned(), address: "192.0.2.8".to_owned() }
}

async fn sessions(store: &Store, user_id: Uuid, now: Timestamp) -> Vec<Session> {
    store.list(user_id, &all(), now).await.unwrap()
}

async fn revocations(store: &Store, after: u64, now: Timestamp) -> Vec<Revocation> {
    store.revocations_after(after, 1000, now).await.unwrap()
}

async fn a_stored_session_is_read_back_unchanged(store: Store) {
    let user = Uuid::now_v7();
    let session = add(&store, user, start()).await;
    assert_eq!(session.counter, FIRST_COUNTER);
    assert_eq!(sessions(&store, user, start()).await, [session]);
    assert_eq!(store.count_active(start()).await.unwrap(), 1);
}

async fn a_list_contains_the_active_sessions_of_one_user_newest_first_in_pages(store: Store) {
    let user = Uuid::now_v7();
    add(&store, user, start() - TimeDelta::days(15)).await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.insert(0, add(&store, user, start()).await);
        add(&store, Uuid::now_v7(), start()).await;
    }
    assert_eq!(sessions(&store, user, start()).await, expected);

    let page = Page { size: 2, after: None };
    assert_eq!(store.list(user, &page, start()).await.unwrap(), expected[..3], "the page plus one session");
    let page = Page { size: 2, after: Some(expected[1].id) };
    assert_eq!(store.list(user, &page, start()).await.unwrap(), expected[2..]);
}

async fn the_count_of_a_user_is_at_least_that_of_the_active_sessions(store: Store) {
    let user = Uuid::now_v7();
    assert_eq!(store.count_of_user(user, start()).await.unwrap(), 0);
    add(&store, user, start() - TimeDelta::days(15)).await;
    let session = add(&store, user, start()).await;
    add(&store, user, start()).await;
    add(&store, Uuid::now_v7(), start()).await;
    let count = store.count_of_user(user, start()).await.unwrap();
    assert!((2..=3).contains(&count), "{count}");
    store.end(user, session.id, &LIFETIMES, start()).await.unwrap();
    assert_eq!(store.count_of_user(user, start()).await.unwrap(), count - 1);
}

async fn another_authentication_raises_an_active_session_of_its_user(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    let (user, id, now) = (session.user_id, session.id, start() + seconds(60));
    assert_eq!(session.authentication, Authentication { at: start(), methods: vec!["pwd".to_owned()] });
    let methods = ["otp".to_owned(), "mfa".to_owned()];
    assert_eq!(store.raise(Uuid::now_v7(), id, &methods, now).await.unwrap(), None, "of another user");
    assert_eq!(store.raise(user, Uuid::now_v7(), &methods, now).await.unwrap(), None, "unknown");
    assert_eq!(store.raise(user, id, &methods, session.idle_expires_at).await.unwrap(), None, "expired");
    assert_eq!(sessions(&store, user, start()).await, std::slice::from_ref(&session));

    let authentication = Authentication { at: now, methods: methods.to_vec() };
    let raised = Session { authentication, ..session };
    assert_eq!(store.raise(user, id, &methods, now).await.unwrap(), Some(raised.clone()));
    assert_eq!(sessions(&store, user, now).await, std::slice::from_ref(&raised));
    let Rotation::Advanced(advanced) = present(&store, &raised, raised.counter, now).await else { panic!() };
    assert_eq!(advanced.authentication, raised.authentication, "a refresh keeps it");
    store.end(user, id, &LIFETIMES, now).await.unwrap();
    assert_eq!(store.raise(user, id, &methods, now).await.unwrap(), None, "ended");
    assert_eq!(sessions(&store, user, now).await, []);
}

async fn of_concurrent_authentications_one_is_kept_whole(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    let all = [vec!["pwd"], vec!["otp", "mfa"], vec!["hwk", "user", "mfa"], vec!["pwd", "otp", "mfa"]]
        .map(|methods| methods.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let calls = all.clone().map(|methods| {
        let store = store.clone();
        tokio::spawn(async move { store.raise(session.user_id, session.id, &methods, start()).await.unwrap().unwrap() })
    });
    for call in calls {
        call.await.unwrap();
    }
    let kept = &sessions(&store, session.user_id, start()).await[0].authentication.methods;
    assert!(all.contains(kept), "{kept:?}");
}

async fn ending_a_session_revokes_its_tokens(store: Store) {
    let user = Uuid::now_v7();
    let (one, other) = (add(&store, user, start()).await, add(&store, user, start()).await);
    let now = start() + seconds(60);
    let ended = store.end(user, one.id, &LIFETIMES, now).await.unwrap();
    assert_eq!(ended.sessions, 1);
    let expected = Revocation {
        seq: ended.revocation.unwrap(),
        scope: Scope::Session(one.id),
        forget_at: now + LIFETIMES.token_lifetime_max,
    };
    assert_eq!(revocations(&store, 0, now).await, [expected]);
    assert_eq!(present(&store, &one, one.counter, now).await, Rotation::Ended);
    assert_eq!(sessions(&store, user, now).await, [other]);
}

async fn a_session_can_only_be_ended_by_its_user(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    let none_ended = EndedSessions::default();
    assert_eq!(store.end(Uuid::now_v7(), session.id, &LIFETIMES, start()).await.unwrap(), none_ended);
    assert_eq!(store.end(session.user_id, Uuid::now_v7(), &LIFETIMES, start()).await.unwrap(), none_ended);
    assert_eq!(store.end_all(Uuid::now_v7(), None, &LIFETIMES, start()).await.unwrap(), none_ended);
    assert_eq!(store.end(session.user_id, session.id, &LIFETIMES, session.idle_expires_at).await.unwrap(), none_ended);
    assert_eq!(sessions(&store, session.user_id, start()).await, [session]);
    assert!(revocations(&store, 0, start()).await.is_empty());
}

async fn concurrent_calls_end_a_session_once(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(
                async move { store.end(session.user_id, session.id, &LIFETIMES, start()).await.unwrap().sessions },
            )
        })
        .collect();
    let mut ended = 0;
    for task in tasks {
        ended += task.await.unwrap();
    }
    assert_eq!(ended, 1);
    assert_eq!(revocations(&store, 0, start()).await.len(), 1);
}

async fn ending_all_sessions_can_keep_one(store: Store) {
    let user = Uuid::now_v7();
    let kept = add(&store, user, start()).await;
    let other_session = add(&store, Uuid::now_v7(), start()).await;
    let mut others = HashSet::new();
    for _ in 0..3 {
        others.insert(Scope::Session(add(&store, user, start()).await.id));
    }
    let ended = store.end_all(user, Some(kept.id), &LIFETIMES, start()).await.unwrap();
    assert_eq!(ended.sessions, 3);
    let revoked = revocations(&store, 0, start()).await;
    assert_eq!(revoked.last().unwrap().seq, ended.revocation.unwrap());
    assert_eq!(revoked.into_iter().map(|revocation| revocation.scope).collect::<HashSet<_>>(), others);
    assert_eq!(sessions(&store, user, start()).await, [kept]);

    assert_eq!(store.end_all(user, None, &LIFETIMES, start()).await.unwrap().sessions, 1);
    assert_eq!(store.end_all(user, None, &LIFETIMES, start()).await.unwrap(), EndedSessions::default());
    assert_eq!(sessions(&store, other_session.user_id, start()).await, [other_session]);
}

async fn voiding_tokens_keeps_the_sessions(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    let now = start() + seconds(60);
    let seq = store.void_tokens(&[Holder::User(session.user_id)], &LIFETIMES, now).await.unwrap();
    let scope = Scope::Tokens { of: Holder::User(session.user_id), void_until: now };
    let expected = Revocation { seq, scope, forget_at: now + LIFETIMES.token_lifetime_max };
    assert_eq!(revocations(&store, 0, now).await, [expected]);
    let role = Holder::Role("manager".to_owned());
    let seq = store.void_tokens(std::slice::from_ref(&role), &LIFETIMES, now).await.unwrap();
    let expected = Revocation {
        seq,
        scope: Scope::Tokens { of: role, void_until: now },
        forget_at: now + LIFETIMES.token_lifetime_max,
    };
    assert_eq!(revocations(&store, seq - 1, now).await, [expected]);
    let all = [Holder::Role("editor".to_owned()), Holder::Role("lead".to_owned()), Holder::User(session.user_id)];
    let last = store.void_tokens(&all, &LIFETIMES, now).await.unwrap();
    let stored = revocations(&store, seq, now).await;
    assert_eq!(stored.last().unwrap().seq, last);
    let scopes: Vec<_> = stored.into_iter().map(|revocation| revocation.scope).collect();
    assert_eq!(scopes, all.map(|of| Scope::Tokens { of, void_until: now }));
    assert_eq!(sessions(&store, session.user_id, now).await, [session]);
}

async fn a_revoked_key_is_kept_for_long_and_what_expires_after_it_is_swept(store: Store) {
    let (now, user) = (start(), Uuid::now_v7());
    let seq = store.void_key("key-1_A", now).await.unwrap();
    let scope = Scope::Key("key-1_A".to_owned());
    let key = Revocation { seq, scope, forget_at: now + KEY_RETENTION };
    assert_eq!(revocations(&store, 0, now).await, std::slice::from_ref(&key));
    assert!(store.void_key("key-1_A", now).await.unwrap() > seq, "again");
    // More than one script reads at once.
    for _ in 0..300 {
        store.void_tokens(&[Holder::User(user)], &LIFETIMES, now).await.unwrap();
    }
    let later = now + TimeDelta::days(1);
    let kept = store.void_tokens(&[Holder::User(user)], &LIFETIMES, later).await.unwrap();
    assert_eq!(store.sweep(later, later).await.unwrap(), Swept { sessions: 0, revocations: 300 });
    assert_eq!(store.sweep(later, later).await.unwrap(), Swept::default());
    let left = revocations(&store, 0, later).await;
    assert_eq!((left.len(), &left[0], left[2].seq), (3, &key, kept));

    let end = now + KEY_RETENTION;
    assert_eq!(revocations(&store, 0, end).await, []);
    store.void_tokens(&[Holder::User(user)], &LIFETIMES, end).await.unwrap();
    assert_eq!(store.sweep(end, end).await.unwrap(), Swept { sessions: 0, revocations: 3 });
}

async fn revocations_are_read_in_order_from_any_cursor_in_batches(store: Store) {
    let mut seqs = Vec::new();
    for _ in 0..5 {
        seqs.push(store.void_tokens(&[Holder::User(Uuid::now_v7())], &LIFETIMES, start()).await.unwrap());
    }
    assert!(seqs.is_sorted() && seqs[0] > 0);
    assert_eq!(store.newest_revocation().await.unwrap(), seqs[4]);
    let read = async |after, limit| {
        let found = store.revocations_after(after, limit, start()).await.unwrap();
        found.into_iter().map(|revocation| revocation.seq).collect::<Vec<_>>()
    };
    assert_eq!(read(0, 1000).await, seqs);
    assert_eq!(read(0, 2).await, seqs[..2]);
    assert_eq!(read(seqs[1], 2).await, seqs[2..4]);
    assert!(read(seqs[4], 2).await.is_empty());
    assert!(read(u64::MAX, 2).await.is_empty());
}

async fn concurrent_revocations_are_each_stored_once(store: Store) {
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                store.void_tokens(&[Holder::User(Uuid::now_v7())], &LIFETIMES, start()).await.unwrap()
            })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.push(task.await.unwrap());
    }
    seqs.sort_unstable();
    let found: Vec<_> = revocations(&store, 0, start()).await.into_iter().map(|revocation| revocation.seq).collect();
    assert_eq!(found, seqs);
}

async fn a_reader_misses_no_concurrent_revocation(store: Store) {
    const WRITERS: usize = 8;
    const REVOCATIONS_PER_WRITER: usize = 25;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..REVOCATIONS_PER_WRITER {
                    let session = add(&store, Uuid::now_v7(), start()).await;
                    store.end(session.user_id, session.id, &LIFETIMES, start()).await.unwrap();
                }
            })
        })
        .collect();
    let (mut cursor, mut seen) = (0, 0);
    while seen < WRITERS * REVOCATIONS_PER_WRITER {
        let found = revocations(&store, cursor, start()).await;
        seen += found.len();
        cursor = found.last().map_or(cursor, |revocation| revocation.seq);
        if writers.iter().all(tokio::task::JoinHandle::is_finished) && found.is_empty() {
            break;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    seen += revocations(&store, cursor, start()).await.len();
    assert_eq!(seen, WRITERS * REVOCATIONS_PER_WRITER, "a revocation became visible before the cursor");
}

async fn a_sweep_deletes_only_what_has_expired(store: Store) {
    let now = start() + LIFETIMES.idle_timeout;
    let user = Uuid::now_v7();
    add(&store, user, start()).await;
    let active = add(&store, user, start() + seconds(1)).await;
    store.void_tokens(&[Holder::User(user)], &LIFETIMES, now - LIFETIMES.token_lifetime_max).await.unwrap();
    let kept = store.void_tokens(&[Holder::User(user)], &LIFETIMES, now).await.unwrap();
    assert_eq!(revocations(&store, 0, now).await.len(), 1, "an expired revocation is not returned, swept or not");

    assert_eq!(store.sweep(now, now).await.unwrap(), Swept { sessions: 1, revocations: 1 });
    assert_eq!(store.sweep(now, now).await.unwrap(), Swept::default());
    assert_eq!(sessions(&store, user, now).await, [active]);
    assert_eq!(revocations(&store, 0, now).await[0].seq, kept);
}

async fn sequence_numbers_are_unique_and_the_newest_survives_a_sweep(store: Store) {
    let user = Uuid::now_v7();
    let last = store.void_tokens(&[Holder::User(user)], &LIFETIMES, start()).await.unwrap();
    let end = start() + LIFETIMES.token_lifetime_max;
    store.sweep(end, end).await.unwrap();
    assert_eq!(store.newest_revocation().await.unwrap(), last);
    assert!(store.void_tokens(&[Holder::User(user)], &LIFETIMES, start()).await.unwrap() > last);
}

/// Opens a database of the previous release that has a session.
async fn a_session_of_the_previous_release_is_rotated(location: Location) {
    let id = Uuid::now_v7();
    let before = Db::open(location.clone(), &MIGRATIONS[..1]).await.unwrap();
    run!(before.writer(), |db| {
        sqlx::query(
            "INSERT INTO session
                 (id, user_id, device, address, created_at, last_seen_at, idle_expires_at, expires_at, counter)
             VALUES ($1, $2, 'curl/8', '192.0.2.7', $3, $3, $4, $4, 7)",
        )
        .bind(id)
        .bind(Uuid::now_v7())
        .bind(start().timestamp_micros())
        .bind((start() + seconds(60)).timestamp_micros())
        .execute(db)
        .await
        .unwrap();
    });
    drop(before);
    let store = SqlStore::new(Db::open(location, MIGRATIONS).await.unwrap());
    // The response of its last rotation was lost.
    let rotation = store.rotate(id, 6, &client(), &LIFETIMES, start()).await.unwrap();
    let Rotation::Repeated(session) = rotation else { panic!("{rotation:?}") };
    assert_eq!((session.counter, session.last_device.as_str()), (7, "curl/8"));
    let rotation = store.rotate(id, 7, &client(), &LIFETIMES, start()).await.unwrap();
    assert!(matches!(&rotation, Rotation::Advanced(session) if session.last_device == "curl/9"), "{rotation:?}");
}

#[tokio::test]
async fn a_session_of_the_previous_release_is_rotated_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    a_session_of_the_previous_release_is_rotated(Location::from(&directory.path().join("session.db"))).await;
}

#[tokio::test]
async fn a_session_of_the_previous_release_is_rotated_on_postgres() {
    let database = Postgres::shared().await.database().await;
    a_session_of_the_previous_release_is_rotated(Location::server("session", database.as_str()).unwrap()).await;
}

async fn open_sqlite() -> (Store, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(&directory.path().join("session.db"), MIGRATIONS).await.unwrap();
    (Arc::new(SqlStore::new(db)), directory)
}

async fn open_postgres() -> (Store, Database) {
    let database = Postgres::shared().await.database().await;
    let db = Db::open(Location::server("session", database.as_str()).unwrap(), MIGRATIONS).await.unwrap();
    (Arc::new(SqlStore::new(db)), database)
}

async fn open_redis() -> (Store, ()) {
    let server = drystone_backends::Redis::shared();
    let url = server.url().to_owned().into();
    (redis_store(Config { url, prefix: server.prefix(), ..Config::default() }).await, ())
}

async fn open_redis_cluster() -> (Store, ()) {
    let server = RedisCluster::shared();
    let url = server.url().into();
    (redis_store(Config { url, cluster: true, prefix: server.prefix(), ..Config::default() }).await, ())
}

/// With a timeout that suits a test machine under load.
async fn redis_store(config: Config) -> Store {
    let redis = Redis::open(&Config { timeout: ConfigDuration::seconds(5), ..config }).unwrap();
    redis.ready().await;
    Arc::new(RedisStore::new(redis))
}

/// Runs every test of the suite on each backend. `$open` returns the store, and a guard that keeps its database.
macro_rules! suite {
    ($backend:ident, $open:path: $($test:ident,)+) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let (store, _guard) = $open().await;
                    super::$test(store).await;
                }
            )+
        }
    };
    ($($backend:ident, $open:path;)+) => {
        $(suite! { $backend, $open:
            a_stored_session_is_read_back_unchanged,
            the_current_counter_advances_the_session,
            a_rotation_extends_the_idle_expiry_up_to_the_absolute_one,
            the_previous_counter_gets_the_same_successor_within_the_grace_period,
            a_counter_is_repeated_a_limited_number_of_times,
            a_used_counter_gets_a_new_successor_while_the_last_one_is_unused,
            new_successors_are_issued_less_often_after_some,
            a_superseded_counter_ends_the_session,
            repeats_on_consecutive_rotations_are_counted,
            an_older_counter_ends_the_session_at_once,
            a_counter_that_was_never_issued_changes_nothing,
            an_expired_or_unknown_session_has_ended,
            concurrent_rotations_of_one_session_have_one_successor,
            concurrent_reuse_of_a_counter_revokes_once,
            a_list_contains_the_active_sessions_of_one_user_newest_first_in_pages,
            the_count_of_a_user_is_at_least_that_of_the_active_sessions,
            ending_a_session_revokes_its_tokens,
            another_authentication_raises_an_active_session_of_its_user,
            of_concurrent_authentications_one_is_kept_whole,
            a_session_can_only_be_ended_by_its_user,
            concurrent_calls_end_a_session_once,
            ending_all_sessions_can_keep_one,
            voiding_tokens_keeps_the_sessions,
            a_revoked_key_is_kept_for_long_and_what_expires_after_it_is_swept,
            revocations_are_read_in_order_from_any_cursor_in_batches,
            concurrent_revocations_are_each_stored_once,
            a_reader_misses_no_concurrent_revocation,
            a_sweep_deletes_only_what_has_expired,
            sequence_numbers_are_unique_and_the_newest_survives_a_sweep,
        })+
    };
}

suite! {
    sqlite, super::open_sqlite;
    postgres, super::open_postgres;
    redis, super::open_redis;
    redis_cluster, super::open_redis_cluster;
}
