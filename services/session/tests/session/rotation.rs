//! Rotation against a model that remembers what a person would: which tokens were given out, which was traded in
//! last and when, and when the session ends.

use chrono::{DateTime, TimeDelta};
use drystone_backends::Postgres;
use drystone_mesh::{clock::Timestamp, config::ConfigDuration, page::Page};
use drystone_session::{
    FIRST_COUNTER, Lifetimes, MIGRATIONS, NewSession, RedisStore, Rotation, SessionStore, SqlStore,
};
use drystone_store::{
    Db, Location,
    redis::{Config, Redis},
};
use proptest::prelude::*;
use tokio::runtime::Runtime;
use uuid::Uuid;

const RULES: Lifetimes = Lifetimes {
    idle_timeout: TimeDelta::seconds(60),
    lifetime: TimeDelta::seconds(300),
    rotation_grace: TimeDelta::seconds(10),
    // Longer than any test of this takes, so that revocations can be counted.
    token_lifetime_max: TimeDelta::days(1),
};

/// One thing that happens to a session.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes.
    Wait(i64),
    /// Somebody presents the token that is so many steps older than the newest; below 0, one that is not there yet.
    Present(i64),
    /// The user signs out.
    End,
    /// The store is swept.
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop_oneof![Just(0_i64), Just(1), 2..20_i64, 20..70_i64].prop_map(Step::Wait),
        8 => prop_oneof![6 => Just(0_i64), 4 => Just(1), 1 => 2..4_i64, 1 => -2..0_i64].prop_map(Step::Present),
        1 => Just(Step::End),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a person would remember.
struct Model {
    /// The tokens that were given out, oldest first.
    given: Vec<u64>,
    traded_in_at: Option<Timestamp>,
    used_at: Timestamp,
    born_at: Timestamp,
    ended: bool,
    revocations: usize,
}

/// What a client is told.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Next(u64),
    Reused,
    NeverIssued,
    Over,
}

impl Model {
    fn over(&self, now: Timestamp) -> bool {
        self.ended || now - self.used_at >= RULES.idle_timeout || now - self.born_at >= RULES.lifetime
    }

    fn newest(&self) -> u64 {
        self.given[self.given.len() - 1]
    }

    fn present(&mut self, token: u64, now: Timestamp) -> Answer {
        if self.over(now) {
            return Answer::Over;
        }
        let Some(place) = self.given.iter().position(|given| *given == token) else { return Answer::NeverIssued };
        let age = self.given.len() - 1 - place;
        let answer_may_be_lost = self.traded_in_at.is_some_and(|at| now - at <= RULES.rotation_grace);
        match age {
            0 => {
                self.given.push(token + 1);
                self.traded_in_at = Some(now);
                self.used_at = now;
                Answer::Next(token + 1)
            }
            1 if answer_may_be_lost => Answer::Next(self.newest()),
            _ => {
                self.ended = true;
                self.revocations += 1;
                Answer::Reused
            }
        }
    }

    fn end(&mut self, now: Timestamp) {
        if !self.over(now) {
            self.ended = true;
            self.revocations += 1;
        }
    }
}

fn answer(rotation: &Rotation) -> Answer {
    match rotation {
        Rotation::Advanced(session) | Rotation::Repeated(session) => Answer::Next(session.counter),
        Rotation::Reused { .. } => Answer::Reused,
        Rotation::NeverIssued => Answer::NeverIssued,
        Rotation::Over => Answer::Over,
    }
}

async fn follow(store: &dyn SessionStore, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut now = DateTime::from_timestamp_micros(1_700_000_000_000_000).unwrap();
    let new = NewSession { user_id: Uuid::now_v7(), device: String::new(), address: String::new() };
    let session = RULES.start(new, now);
    store.insert(&session).await.unwrap();
    let before = store.newest_revocation().await.unwrap();
    let mut model = Model {
        given: vec![FIRST_COUNTER],
        traded_in_at: None,
        used_at: now,
        born_at: now,
        ended: false,
        revocations: 0,
    };
    for step in steps {
        match step {
            Step::Wait(seconds) => now += TimeDelta::seconds(seconds),
            Step::Present(age) => {
                let Some(token) = model.newest().checked_add_signed(-age) else { continue };
                let rotation = store.rotate(session.id, token, &RULES, now).await.unwrap();
                prop_assert_eq!(answer(&rotation), model.present(token, now));
            }
            Step::End => {
                store.end(session.user_id, session.id, &RULES, now).await.unwrap();
                model.end(now);
            }
            Step::Sweep => {
                store.sweep(now).await.unwrap();
            }
        }
        let listed = store.list(session.user_id, &Page { size: 9, after: None }, now).await.unwrap();
        let counters: Vec<u64> = listed.iter().map(|session| session.counter).collect();
        let expected = if model.over(now) { vec![] } else { vec![model.newest()] };
        prop_assert_eq!(counters, expected);
        let revocations = store.revocations_after(before, 100, now).await.unwrap().len();
        prop_assert_eq!(revocations, model.revocations, "a session is revoked once, when it ends before its time");
    }
    Ok(())
}

fn follows_the_model(runtime: &Runtime, store: &dyn SessionStore) {
    proptest!(ProptestConfig::with_cases(100), |(steps in steps())| {
        runtime.block_on(follow(store, steps))?;
    });
}

#[test]
fn sqlite_follows_the_model_whatever_happens() {
    let directory = tempfile::tempdir().unwrap();
    sql_follows_the_model(Location::from(&directory.path().join("session.db")));
}

#[test]
fn postgres_follows_the_model_whatever_happens() {
    let runtime = Runtime::new().unwrap();
    let database = runtime.block_on(async { Postgres::shared().await.database().await });
    sql_follows_the_model(Location::server("session", database.as_str()).unwrap());
}

fn sql_follows_the_model(place: Location) {
    let runtime = Runtime::new().unwrap();
    let db = runtime.block_on(Db::open(place, MIGRATIONS)).unwrap();
    follows_the_model(&runtime, &SqlStore::new(db));
}

#[test]
fn redis_follows_the_model_whatever_happens() {
    let runtime = Runtime::new().unwrap();
    let server = drystone_backends::Redis::shared();
    let url = server.url().to_owned().into();
    let config = Config { url, prefix: server.prefix(), timeout: ConfigDuration::seconds(5), ..Config::default() };
    let redis = runtime.block_on(async {
        let redis = Redis::open(&config).unwrap();
        redis.ready().await;
        redis
    });
    follows_the_model(&runtime, &RedisStore::new(redis));
}
