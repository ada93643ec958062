//! What is true of the store in Redis alone: what is left after a crash at each point, what expires by itself, and what
//! several instances have of it.

use std::sync::Arc;

use chrono::TimeDelta;
use drystone_mesh::{
    clock::{Clock, Timestamp},
    config::ConfigDuration,
    page::Page,
};
use drystone_session::{
    Ended, Lifetimes, NewSession, RedisStore, Revocation, Rotation, Scope, Session, SessionStore, Shard,
};
use drystone_store::redis::{Config, FromRedisValue, Redis, cmd};
use uuid::Uuid;

const RULES: Lifetimes = Lifetimes {
    idle_timeout: TimeDelta::days(14),
    lifetime: TimeDelta::days(90),
    rotation_grace: TimeDelta::seconds(10),
    token_lifetime_max: TimeDelta::hours(1),
};

/// A place in Redis of one's own, and stores there.
struct Place {
    config: Config,
    redis: Redis,
}

impl Place {
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

    async fn ask<T: FromRedisValue>(&self, command: &str, key: &str, arguments: &[&str]) -> T {
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
    let new = NewSession { user_id, device: String::new(), address: String::new() };
    let session = RULES.start(new, now());
    store.insert(&session).await.unwrap();
    session
}

async fn revoked(store: &RedisStore) -> Vec<Scope> {
    let revocations = store.revocations_after(0, 1000, now()).await.unwrap();
    revocations.into_iter().map(|Revocation { scope, .. }| scope).collect()
}

fn key_of(session: &Session) -> String {
    format!("session:{{{}}}:{}", Shard::of_session(session.id), session.id.simple())
}

/// What `end.lua` leaves when the service dies before the revocation is in the stream.
async fn die_after_the_end_of(place: &Place, session: &Session) {
    let shard = Shard::of_session(session.id);
    let (user, id) = (session.user_id.simple().to_string(), session.id.simple().to_string());
    let _: u64 = place.ask("DEL", &key_of(session), &[]).await;
    let _: u64 = place.ask("ZREM", &format!("user:{{{shard}}}:{user}"), &[&id]).await;
    let _: u64 = place.ask("ZREM", &format!("ends:{{{shard}}}"), &[&format!("{user}{id}")]).await;
    let forget_at = RULES.forget_at(now()).timestamp_micros().to_string();
    let _: u64 = place.ask("HSET", &format!("outbox:{{{shard}}}"), &[&id, &forget_at]).await;
}

#[tokio::test]
async fn an_ending_that_was_cut_off_is_told_by_the_next_sweep() {
    let place = Place::new().await;
    let store = place.store().await;
    let session = add(&store, Uuid::now_v7()).await;
    die_after_the_end_of(&place, &session).await;
    assert!(revoked(&store).await.is_empty());

    place.store().await.sweep(now()).await.unwrap();
    assert_eq!(revoked(&store).await, [Scope::Session(session.id)]);
    store.sweep(now()).await.unwrap();
    assert_eq!(revoked(&store).await.len(), 1, "once is enough");
}

#[tokio::test]
async fn an_ending_that_was_cut_off_is_told_before_anybody_hears_that_the_session_is_gone() {
    let place = Place::new().await;
    let store = place.store().await;

    let session = add(&store, Uuid::now_v7()).await;
    die_after_the_end_of(&place, &session).await;
    let again = store.end(session.user_id, session.id, &RULES, now()).await.unwrap();
    assert_eq!(again.sessions, 0, "it has ended before");
    assert_eq!(again.revocation, Some(store.newest_revocation().await.unwrap()), "there is something to wait for");

    let session = add(&store, Uuid::now_v7()).await;
    die_after_the_end_of(&place, &session).await;
    let again = store.end_all(session.user_id, None, &RULES, now()).await.unwrap();
    assert_eq!(again, Ended { sessions: 0, revocation: Some(store.newest_revocation().await.unwrap()) });

    let session = add(&store, Uuid::now_v7()).await;
    die_after_the_end_of(&place, &session).await;
    assert_eq!(store.rotate(session.id, 1, &RULES, now()).await.unwrap(), Rotation::Over);
    assert_eq!(revoked(&store).await.len(), 3);
}

#[tokio::test]
async fn a_revocation_that_was_told_and_not_crossed_off_is_not_told_twice() {
    let place = Place::new().await;
    let store = place.store().await;
    let session = add(&store, Uuid::now_v7()).await;
    let ended = store.end(session.user_id, session.id, &RULES, now()).await.unwrap();
    die_after_the_end_of(&place, &session).await;
    store.sweep(now()).await.unwrap();
    let again = store.end(session.user_id, session.id, &RULES, now()).await.unwrap();
    assert_eq!(again.revocation, None, "it has been crossed off");
    assert_eq!(revoked(&store).await.len(), 1);
    assert_eq!(store.newest_revocation().await.unwrap(), ended.revocation.unwrap());
}

#[tokio::test]
async fn a_session_and_what_leads_to_it_expire_by_themselves() {
    let place = Place::new().await;
    let store = place.store().await;
    let session = add(&store, Uuid::now_v7()).await;
    let user = format!("user:{{{}}}:{}", Shard::of_user(session.user_id), session.user_id.simple());
    let idle = RULES.idle_timeout.num_milliseconds();
    let near = |rest: i64, end: i64| (end..end + 600_000).contains(&rest);
    assert!(near(place.ask("PTTL", &key_of(&session), &[]).await, idle));
    assert!(near(place.ask("PTTL", &user, &[]).await, RULES.lifetime.num_milliseconds()));

    // A rotation moves the end of the session, and no end of it leaves anything behind.
    let later = now() + TimeDelta::days(85);
    assert_eq!(store.rotate(session.id, 1, &RULES, later).await.unwrap(), Rotation::Over);
    let moved = store.rotate(session.id, 1, &RULES, now() + TimeDelta::days(7)).await.unwrap();
    assert!(matches!(moved, Rotation::Advanced(_)));
    assert!(near(place.ask("PTTL", &key_of(&session), &[]).await, idle));
    store.end(session.user_id, session.id, &RULES, now()).await.unwrap();
    for key in [key_of(&session), user, format!("ends:{{{}}}", Shard::of_session(session.id))] {
        assert_eq!(place.ask::<u64>("EXISTS", &key, &[]).await, 0, "{key}");
    }
}

#[tokio::test]
async fn a_session_that_redis_has_dropped_is_over_and_in_nobodys_way() {
    let place = Place::new().await;
    let store = place.store().await;
    let user = Uuid::now_v7();
    let (dropped, kept) = (add(&store, user).await, add(&store, user).await);
    let _: u64 = place.ask("DEL", &key_of(&dropped), &[]).await;
    assert_eq!(store.rotate(dropped.id, 1, &RULES, now()).await.unwrap(), Rotation::Over);
    let page = Page { size: 1, after: None };
    assert_eq!(store.list(user, &page, now()).await.unwrap(), [kept]);
    assert_eq!(store.end_all(user, None, &RULES, now()).await.unwrap().sessions, 1);
}

#[tokio::test]
async fn what_one_instance_revokes_is_news_to_another() {
    let place = Place::new().await;
    let (one, other) = (place.store().await, place.store().await);
    let waiting = tokio::spawn({
        let other = other.clone();
        async move { other.news(0).await.unwrap() }
    });
    let number = one.void_tokens(Uuid::now_v7(), &RULES, now()).await.unwrap();
    assert_eq!(waiting.await.unwrap(), number);
    // And the next, on the connection that stands.
    let waiting = tokio::spawn(async move { other.news(number).await.unwrap() });
    let next = one.void_tokens(Uuid::now_v7(), &RULES, now()).await.unwrap();
    assert_eq!(waiting.await.unwrap(), next);
}

#[tokio::test]
async fn a_revocation_of_no_known_kind_is_said_and_not_passed_over() {
    let place = Place::new().await;
    let store = place.store().await;
    let _: String = place.ask("XADD", "{revocations}", &["*", "forget", "1"]).await;
    assert!(store.revocations_after(0, 10, now()).await.is_err());
}
