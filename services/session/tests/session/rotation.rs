//! Property tests of rotation against a model, which records the issued tokens, which of them were used, when the last one
//! was issued, and when the session ends.

use chrono::{DateTime, TimeDelta};
use drystone_backends::Postgres;
use drystone_mesh::{clock::Timestamp, config::ConfigDuration, page::Page};
use drystone_session::{
    FIRST_COUNTER, LATE_REPLACEMENT, Lifetimes, MAX_REPEATS, MAX_REPLACEMENTS, MIGRATIONS, NewSession, PresentedBy,
    RedisStore, Rotation, SessionStore, SqlStore,
};
use drystone_store::{
    Db, Location,
    redis::{Config, Redis},
};
use proptest::prelude::*;
use tokio::runtime::Runtime;
use uuid::Uuid;

const LIFETIMES: Lifetimes = Lifetimes {
    idle_timeout: TimeDelta::seconds(60),
    lifetime: TimeDelta::seconds(300),
    rotation_grace: TimeDelta::seconds(10),
    // Longer than the simulated time of any test, so that no revocation expires before it is counted.
    token_lifetime_max: TimeDelta::days(1),
};

/// An operation on a session.
#[derive(Debug, Clone)]
enum Operation {
    /// Advances the clock by this many seconds.
    Wait(i64),
    /// Presents the token issued this many rotations before the newest; below 0, one that was never issued.
    Present(i64),
    /// Presents the token that was used last.
    PresentLastUsed,
    /// Presents it this many times.
    PresentLastUsedOften(usize),
    /// The user signs out.
    End,
    /// The store is swept.
    Sweep,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        4 => prop_oneof![Just(0_i64), Just(1), 2..20_i64, 20..70_i64].prop_map(Operation::Wait),
        8 => prop_oneof![6 => Just(0_i64), 4 => Just(1), 1 => 2..4_i64, 1 => -2..0_i64].prop_map(Operation::Present),
        8 => Just(Operation::PresentLastUsed),
        1 => (15..30_usize).prop_map(Operation::PresentLastUsedOften),
        1 => Just(Operation::End),
        1 => Just(Operation::Sweep),
    ];
    prop::collection::vec(operation, 1..40)
}

/// The reference implementation.
struct Model {
    /// The issued tokens, oldest first.
    issued: Vec<u64>,
    /// The tokens that got a successor, oldest first.
    used: Vec<u64>,
    /// How often the newest token was given out again.
    repeats: u32,
    /// How many tokens were issued for the last used one, after its first successor.
    replacements: u32,
    last_seen_at: Timestamp,
    created_at: Timestamp,
    ended: bool,
    revocations: usize,
}

/// The outcome for the client.
#[derive(Debug, PartialEq, Eq)]
enum RotationOutcome {
    Next(u64),
    TooOften,
    Reused,
    NeverIssued,
    Ended,
}

impl Model {
    fn has_ended(&self, now: Timestamp) -> bool {
        self.ended || now - self.last_seen_at >= LIFETIMES.idle_timeout || now - self.created_at >= LIFETIMES.lifetime
    }

    fn newest(&self) -> u64 {
        self.issued[self.issued.len() - 1]
    }

    fn present(&mut self, token: u64, now: Timestamp) -> RotationOutcome {
        if self.has_ended(now) {
            return RotationOutcome::Ended;
        }
        if !self.issued.contains(&token) {
            return RotationOutcome::NeverIssued;
        }
        let is_within_grace = now - self.last_seen_at <= LIFETIMES.rotation_grace;
        if token == self.newest() {
            self.used.push(token);
            self.replacements = 0;
            self.issue(now)
        } else if self.used.last() != Some(&token) {
            self.reuse()
        } else if is_within_grace && self.repeats == MAX_REPEATS {
            RotationOutcome::TooOften
        } else if is_within_grace {
            self.repeats += 1;
            RotationOutcome::Next(self.newest())
        } else if self.replacements >= MAX_REPLACEMENTS && now - self.last_seen_at < LATE_REPLACEMENT {
            RotationOutcome::TooOften
        } else {
            self.replacements += 1;
            self.issue(now)
        }
    }

    fn issue(&mut self, now: Timestamp) -> RotationOutcome {
        self.issued.push(self.newest() + 1);
        self.repeats = 0;
        self.last_seen_at = now;
        RotationOutcome::Next(self.newest())
    }

    fn reuse(&mut self) -> RotationOutcome {
        self.ended = true;
        self.revocations += 1;
        RotationOutcome::Reused
    }

    fn end(&mut self, now: Timestamp) {
        if !self.has_ended(now) {
            self.ended = true;
            self.revocations += 1;
        }
    }
}

fn outcome(rotation: &Rotation) -> RotationOutcome {
    match rotation {
        Rotation::Advanced(session) | Rotation::Repeated(session) | Rotation::Replaced(session) => {
            RotationOutcome::Next(session.counter)
        }
        Rotation::RepeatedTooOften(_) => RotationOutcome::TooOften,
        Rotation::Reused { .. } => RotationOutcome::Reused,
        Rotation::NeverIssued => RotationOutcome::NeverIssued,
        Rotation::Ended => RotationOutcome::Ended,
    }
}

async fn present(
    store: &dyn SessionStore,
    id: Uuid,
    token: u64,
    model: &mut Model,
    now: Timestamp,
) -> Result<(), TestCaseError> {
    let rotation = store.rotate(id, token, &PresentedBy::default(), &LIFETIMES, now).await.unwrap();
    prop_assert_eq!(outcome(&rotation), model.present(token, now));
    Ok(())
}

async fn run(store: &dyn SessionStore, operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let mut now = DateTime::from_timestamp_micros(1_700_000_000_000_000).unwrap();
    let new =
        NewSession { user_id: Uuid::now_v7(), device: String::new(), address: String::new(), methods: Vec::new() };
    let session = LIFETIMES.start(new, now);
    store.insert(&session).await.unwrap();
    let before = store.newest_revocation().await.unwrap();
    let mut model = Model {
        issued: vec![FIRST_COUNTER],
        used: Vec::new(),
        repeats: 0,
        replacements: 0,
        last_seen_at: now,
        created_at: now,
        ended: false,
        revocations: 0,
    };
    for operation in operations {
        match operation {
            Operation::Wait(seconds) => now += TimeDelta::seconds(seconds),
            Operation::Present(age) => {
                let Some(token) = model.newest().checked_add_signed(-age) else { continue };
                present(store, session.id, token, &mut model, now).await?;
            }
            Operation::PresentLastUsed => {
                let Some(token) = model.used.last().copied() else { continue };
                present(store, session.id, token, &mut model, now).await?;
            }
            Operation::PresentLastUsedOften(times) => {
                let Some(token) = model.used.last().copied() else { continue };
                for _ in 0..times {
                    present(store, session.id, token, &mut model, now).await?;
                }
            }
            Operation::End => {
                store.end(session.user_id, session.id, &LIFETIMES, now).await.unwrap();
                model.end(now);
            }
            Operation::Sweep => {
                store.sweep(now, now).await.unwrap();
            }
        }
        let listed = store.list(session.user_id, &Page { size: 9, after: None }, now).await.unwrap();
        let counters: Vec<u64> = listed.iter().map(|session| session.counter).collect();
        let expected = if model.has_ended(now) { vec![] } else { vec![model.newest()] };
        prop_assert_eq!(counters, expected);
        let revocations = store.revocations_after(before, 100, now).await.unwrap().len();
        prop_assert_eq!(revocations, model.revocations, "a session is revoked once, if it ends before it expires");
    }
    Ok(())
}

fn matches_the_model(runtime: &Runtime, store: &dyn SessionStore) {
    proptest!(ProptestConfig::with_cases(100), |(operations in operations())| {
        runtime.block_on(run(store, operations))?;
    });
}

#[test]
fn rotation_on_sqlite_matches_the_model() {
    let directory = tempfile::tempdir().unwrap();
    sql_matches_the_model(Location::from(&directory.path().join("session.db")));
}

#[test]
fn rotation_on_postgres_matches_the_model() {
    let runtime = Runtime::new().unwrap();
    let database = runtime.block_on(async { Postgres::shared().await.database().await });
    sql_matches_the_model(Location::server("session", database.as_str()).unwrap());
}

fn sql_matches_the_model(location: Location) {
    let runtime = Runtime::new().unwrap();
    let db = runtime.block_on(Db::open(location, MIGRATIONS)).unwrap();
    matches_the_model(&runtime, &SqlStore::new(db));
}

#[test]
fn rotation_on_redis_matches_the_model() {
    let runtime = Runtime::new().unwrap();
    let server = drystone_backends::Redis::shared();
    let url = server.url().to_owned().into();
    let config = Config { url, prefix: server.prefix(), timeout: ConfigDuration::seconds(5), ..Config::default() };
    let redis = runtime.block_on(async {
        let redis = Redis::open(&config).unwrap();
        redis.ready().await;
        redis
    });
    matches_the_model(&runtime, &RedisStore::new(redis));
}
