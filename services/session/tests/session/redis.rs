//! The store in Redis: recovery after a crash at each step, expiry of keys, and notification between instances.

use std::sync::Arc;

use chrono::TimeDelta;
use drystone_mesh::{
    clock::{Clock, Timestamp},
    config::ConfigDuration,
    page::Page,
};
use drystone_session::{
    EndedSessions, Holder, Lifetimes, NewSession, PresentedBy, RedisStore, Revocation, Rotation, Scope, Session,
    SessionStore, UserShard,
};
use drystone_store::redis::{Config, FromRedisValue, Redis, cmd};
use uuid::Uuid;

const LIFETIMES: Lifetimes = Lifetimes {
    idle_timeout: TimeDelta::days(14),
    lifetime: TimeDelta::days(90),
    rotation_grace: TimeDelta::seconds(10),
    token_lifetime_max: TimeDelta::hours(1),
};

/// A key prefix in Redis, and stores that use it.
struct Namespace {
    config: Config,
    redis: Redis,
}

impl Namespace {
    async fn new() -> Self {
        let server = drystone_backends::Redis::shared();
        let url = server.url().to_owned().into();
        let config = Config { url, prefix: server.prefix(), timeout: ConfigDuration::seconds(5), ..Config::default() };
        let redis = connect(&config).await;
        Self { config, redis }
    }

    async fn store(&self) -> Arc<RedisStore> {
        Arc::new(RedisStore::new(connect(&self.config).await))
    }

    async fn query<T: FromRedisValue>(&self, command: &str, key: &str, arguments: &[&str]) -> T {
        self.redis.query(cmd(command).arg(format!("{}{key}", self.config.prefix)).arg(arguments)).await.unwrap()
    }
}

async fn connect(config: &Config) -> Redis {
    let redis = Redis::open(config).unwrap();
    redis.ready().await;
    redis
}

fn now() -> Timestamp {
    Clock::system().now()
}

async fn add(store: &RedisStore, user_id: Uuid) -> Session {
    let new = NewSession { user_id, device: String::new(), address: String::new(), methods: Vec::new() };
    let session = LIFETIMES.start(new, now());
    store.insert(&session).await.unwrap();
    session
}

async fn revoked(store: &RedisStore) -> Vec<Scope> {
    let revocations = store.revocations_after(0, 1000, now()).await.unwrap();
    revocations.into_iter().map(|Revocation { scope, .. }| scope).collect()
}

fn key_of(session: &Session) -> String {
    format!("session:{{{}}}:{}", UserShard::of_session(session.id), session.id.simple())
}

/// Leaves what `end.lua` leaves if the service crashes before the revocation is published.
async fn crash_before_publishing(namespace: &Namespace, session: &Session) {
    let shard = UserShard::of_session(session.id);
    let (user, id) = (session.user_id.simple().to_string(), session.id.simple().to_string());
    let _: u64 = namespace.query("DEL", &key_of(session), &[]).await;
    let _: u64 = namespace.query("ZREM", &format!("user:{{{shard}}}:{user}"), &[&id]).await;
    let _: u64 = namespace.query("ZREM", &format!("ends:{{{shard}}}"), &[&format!("{user}{id}")]).await;
    let forget_at = LIFETIMES.forget_at(now()).timestamp_micros().to_string();
    let _: u64 = namespace.query("HSET", &format!("outbox:{{{shard}}}"), &[&id, &forget_at]).await;
}

#[tokio::test]
async fn an_unpublished_revocation_is_published_by_the_next_sweep() {
    let namespace = Namespace::new().await;
    let store = namespace.store().await;
    let session = add(&store, Uuid::now_v7()).await;
    crash_before_publishing(&namespace, &session).await;
    assert!(revoked(&store).await.is_empty());

    namespace.store().await.sweep(now(), now()).await.unwrap();
    assert_eq!(revoked(&store).await, [Scope::Session(session.id)]);
    store.sweep(now(), now()).await.unwrap();
    assert_eq!(revoked(&store).await.len(), 1, "it is published once");
}

#[tokio::test]
async fn an_unpublished_revocation_is_published_before_a_call_reports_that_the_session_has_ended() {
    let namespace = Namespace::new().await;
    let store = namespace.store().await;

    let session = add(&store, Uuid::now_v7()).await;
    crash_before_publishing(&namespace, &session).await;
    let again = store.end(session.user_id, session.id, &LIFETIMES, now()).await.unwrap();
    assert_eq!(again.sessions, 0, "it had ended before");
    assert_eq!(
        again.revocation,
        Some(store.newest_revocation().await.unwrap()),
        "the caller waits for the published revocation"
    );

    let session = add(&store, Uuid::now_v7()).await;
    crash_before_publishing(&namespace, &session).await;
    let again = store.end_all(session.user_id, None, &LIFETIMES, now()).await.unwrap();
    assert_eq!(again, EndedSessions { sessions: 0, revocation: Some(store.newest_revocation().await.unwrap()) });

    let session = add(&store, Uuid::now_v7()).await;
    crash_before_publishing(&namespace, &session).await;
    assert_eq!(store.rotate(session.id, 1, &PresentedBy::default(), &LIFETIMES, now()).await.unwrap(), Rotation::Ended);
    assert_eq!(revoked(&store).await.len(), 3);
}

#[tokio::test]
async fn a_published_revocation_that_is_still_in_the_outbox_is_not_published_twice() {
    let namespace = Namespace::new().await;
    let store = namespace.store().await;
    let session = add(&store, Uuid::now_v7()).await;
    let ended = store.end(session.user_id, session.id, &LIFETIMES, now()).await.unwrap();
    crash_before_publishing(&namespace, &session).await;
    store.sweep(now(), now()).await.unwrap();
    let again = store.end(session.user_id, session.id, &LIFETIMES, now()).await.unwrap();
    assert_eq!(again.revocation, None, "it was deleted from the outbox");
    assert_eq!(revoked(&store).await.len(), 1);
    assert_eq!(store.newest_revocation().await.unwrap(), ended.revocation.unwrap());
}

#[tokio::test]
async fn the_keys_of_a_session_expire() {
    let namespace = Namespace::new().await;
    let store = namespace.store().await;
    let session = add(&store, Uuid::now_v7()).await;
    let user = format!("user:{{{}}}:{}", UserShard::of_user(session.user_id), session.user_id.simple());
    let idle = LIFETIMES.idle_timeout.num_milliseconds();
    let is_near = |ttl: i64, expected: i64| (expected..expected + 600_000).contains(&ttl);
    assert!(is_near(namespace.query("PTTL", &key_of(&session), &[]).await, idle));
    assert!(is_near(namespace.query("PTTL", &user, &[]).await, LIFETIMES.lifetime.num_milliseconds()));

    // A rotation extends the expiry, and ending the session deletes all its keys.
    let later = now() + TimeDelta::days(85);
    assert_eq!(store.rotate(session.id, 1, &PresentedBy::default(), &LIFETIMES, later).await.unwrap(), Rotation::Ended);
    let rotation =
        store.rotate(session.id, 1, &PresentedBy::default(), &LIFETIMES, now() + TimeDelta::days(7)).await.unwrap();
    assert!(matches!(rotation, Rotation::Advanced(_)));
    assert!(is_near(namespace.query("PTTL", &key_of(&session), &[]).await, idle));
    store.end(session.user_id, session.id, &LIFETIMES, now()).await.unwrap();
    for key in [key_of(&session), user, format!("ends:{{{}}}", UserShard::of_session(session.id))] {
        assert_eq!(namespace.query::<u64>("EXISTS", &key, &[]).await, 0, "{key}");
    }
}

#[tokio::test]
async fn a_session_of_a_former_release_is_rotated() {
    let namespace = Namespace::new().await;
    let store = namespace.store().await;
    let [advanced, repeated] = [add(&store, Uuid::now_v7()).await, add(&store, Uuid::now_v7()).await];
    let forget = async |session: &Session| {
        let fields = ["confirmed", "repeats", "replacements", "repeated_rotations", "last_device", "last_address"];
        let _: u64 = namespace.query("HDEL", &key_of(session), &fields).await;
    };
    let present = async |session: &Session, counter| {
        store.rotate(session.id, counter, &PresentedBy::default(), &LIFETIMES, now()).await.unwrap()
    };
    forget(&advanced).await;
    assert!(matches!(present(&advanced, 1).await, Rotation::Advanced(next) if next.confirmed == 1));
    // The response of the last rotation by the former release was lost.
    assert!(matches!(present(&repeated, 1).await, Rotation::Advanced(_)));
    forget(&repeated).await;
    assert!(matches!(present(&repeated, 1).await, Rotation::Repeated(next) if next.counter == 2));
    assert!(matches!(present(&repeated, 2).await, Rotation::Advanced(next) if next.counter == 3));
}

#[tokio::test]
async fn all_of_many_sessions_end() {
    let namespace = Namespace::new().await;
    let store = namespace.store().await;
    let user = Uuid::now_v7();
    let mut kept = Uuid::nil();
    for number in 0..450 {
        let session = add(&store, user).await;
        kept = if number == 100 { session.id } else { kept };
    }
    let ended = store.end_all(user, Some(kept), &LIFETIMES, now()).await.unwrap();
    assert_eq!(ended, EndedSessions { sessions: 449, revocation: Some(store.newest_revocation().await.unwrap()) });
    assert_eq!(revoked(&store).await.len(), 449);
    let left = store.list(user, &Page { size: 9, after: None }, now()).await.unwrap();
    assert_eq!(left.into_iter().map(|session| session.id).collect::<Vec<_>>(), [kept]);
}

#[tokio::test]
async fn a_session_that_redis_has_evicted_counts_as_ended() {
    let namespace = Namespace::new().await;
    let store = namespace.store().await;
    let user = Uuid::now_v7();
    let (evicted, kept) = (add(&store, user).await, add(&store, user).await);
    let _: u64 = namespace.query("DEL", &key_of(&evicted), &[]).await;
    assert_eq!(store.rotate(evicted.id, 1, &PresentedBy::default(), &LIFETIMES, now()).await.unwrap(), Rotation::Ended);
    let page = Page { size: 1, after: None };
    assert_eq!(store.list(user, &page, now()).await.unwrap(), [kept]);
    assert_eq!(store.end_all(user, None, &LIFETIMES, now()).await.unwrap().sessions, 1);
}

#[tokio::test]
async fn an_instance_is_notified_of_revocations_by_another() {
    let namespace = Namespace::new().await;
    let (one, other) = (namespace.store().await, namespace.store().await);
    let waiting = tokio::spawn({
        let other = other.clone();
        async move { other.wait_for_revocation(0).await.unwrap() }
    });
    let seq = one.void_tokens(&[Holder::User(Uuid::now_v7())], &LIFETIMES, now()).await.unwrap();
    assert_eq!(waiting.await.unwrap(), seq);
    // And again, on the established connection.
    let waiting = tokio::spawn(async move { other.wait_for_revocation(seq).await.unwrap() });
    let next = one.void_tokens(&[Holder::User(Uuid::now_v7())], &LIFETIMES, now()).await.unwrap();
    assert_eq!(waiting.await.unwrap(), next);
}

#[tokio::test]
async fn a_revocation_with_an_unknown_scope_is_an_error() {
    let namespace = Namespace::new().await;
    let store = namespace.store().await;
    let _: String = namespace.query("XADD", "{revocations}", &["*", "forget", "1"]).await;
    assert!(store.revocations_after(0, 10, now()).await.is_err());
}
