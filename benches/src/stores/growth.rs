//! The same calls where few and where many users, sessions and properties are stored.
//!
//! Two meshes run side by side, each on a database and a Redis of its own, and take turns.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use drystone_backends::{Database, Postgres, Redis};

use super::{
    calls::{Caller, Rpc},
    fleet::Fleet,
    people::{People, Visitor},
    seed, servers,
};
use crate::report::{Row, micros};

/// How many users, sessions and properties, and what that is called.
const FEW: (u64, &str) = (10_000, "10 thousand users");
const MANY: (u64, &str) = (1_000_000, "1 million users");

/// How many users call in one run, each of them in about one call. A service remembers 10,000 tokens.
///
/// Every run meets others, and their rows are read for the first time: were it the same few in each run, they would soon
/// lie in every cache, however many rows lie around them.
const VISITORS: u64 = 4_000;
const IN_FLIGHT: usize = 8;
const RUN: Duration = Duration::from_secs(1);
const RUNS: usize = 5;

/// The 99th percentile may grow by so much.
const AIM: f64 = 1.5;

/// Creating comes last, since it makes lists and claims longer.
const RPCS: [Rpc; 5] = [Rpc::GetMe, Rpc::ListSessions, Rpc::ListProperties, Rpc::Refresh, Rpc::CreateProperty];

/// Measures both.
pub(crate) async fn measure() -> Result<Vec<Row>> {
    let postgres = servers::postgres().await;
    let (few, _) = Grown::to(FEW.0, &postgres).await?;
    let (many, seeded) = Grown::to(MANY.0, &postgres).await?;
    let mut rows = vec![Row::plain(format!("seeding {}", MANY.1), seeded.as_secs_f64(), "s").under(60.0)];
    for rpc in RPCS {
        let (mut of_few, mut of_many) = (Vec::new(), Vec::new());
        for turn in 0..RUNS {
            of_few.push(few.p99(rpc, turn).await?);
            of_many.push(many.p99(rpc, turn).await?);
        }
        let name = |size: &str| format!("{}, {size}, {IN_FLIGHT} in flight, p99", rpc.name());
        let of_few = Row::plain(name(FEW.1), micros(median(of_few)), "us");
        rows.push(Row::plain(name(MANY.1), micros(median(of_many)), "us").within(&of_few, AIM));
        rows.push(of_few);
    }
    Ok(rows)
}

fn median(mut runs: Vec<Duration>) -> Duration {
    runs.sort_unstable();
    runs[runs.len() / 2]
}

/// A mesh of so many users. What it stands on ends after it.
struct Grown {
    caller: Caller,
    /// Of each turn.
    visitors: Vec<Arc<Vec<Visitor>>>,
    _fleet: Fleet,
    _database: Database,
    _redis: Redis,
}

impl Grown {
    /// The mesh, and how long it took to fill.
    async fn to(people: u64, postgres: &Postgres) -> Result<(Self, Duration)> {
        let redis = servers::redis().await?;
        let database = postgres.database().await;
        let fleet = Fleet::start(database.as_str(), redis.url());
        let seeded = seed::fill(database.as_str(), redis.url(), people).await?;
        let caller = Caller::new(&fleet, People::of(database.as_str(), people).await?)?;
        let turns = 0..RUNS as u64;
        let visitors = turns.map(|turn| caller.visitors(VISITORS, 31 * turn)).collect::<Result<_>>()?;
        Ok((Self { caller, visitors, _fleet: fleet, _database: database, _redis: redis }, seeded))
    }

    async fn p99(&self, rpc: Rpc, turn: usize) -> Result<Duration> {
        let visitors = self.visitors.get(turn).context("no such turn")?;
        self.caller.warm(rpc, visitors).await?;
        Ok(self.caller.run(rpc, visitors, IN_FLIGHT, RUN).await?.p99)
    }
}
