//! Calls a second on PostgreSQL and Redis, beside what these do by themselves with as many in flight.

use std::{sync::Arc, time::Duration};

use anyhow::Result;

use super::{
    calls::{Caller, Rpc},
    fleet::Fleet,
    people::{People, Visitor},
    pgbench::{Pgbench, Script},
    redis_benchmark::RedisBenchmark,
    seed, servers,
};
use crate::{
    load::{self, Figures},
    report::{Row, micros},
};

/// How many users, sessions and properties there are.
const PEOPLE: u64 = 10_000;
/// How many of them call.
/// Divisible by the number in flight, so that no two callers meet the same one.
const VISITORS: u64 = 2_048;
/// As many as where the transport is measured.
const IN_FLIGHT: usize = 64;
const RUN: Duration = Duration::from_secs(1);
const RUNS: usize = 5;

/// A call of one statement should reach this much of what its store does.
const AIM: f64 = 0.4;

/// Measures, and tells what each process holds before the first call.
pub(crate) async fn measure() -> Result<Vec<Row>> {
    let postgres = servers::postgres().await;
    let redis = servers::redis().await?;
    let database = postgres.database().await;
    let fleet = Fleet::start(database.as_str(), redis.url());
    let mut rows = Vec::new();
    for (name, memory) in fleet.memory()? {
        rows.push(Row::plain(format!("drystone serve {name}, resident memory when ready"), memory, "MB").under(30.0));
    }

    seed::fill(database.as_str(), redis.url(), PEOPLE).await?;
    let caller = Caller::new(&fleet, People::of(database.as_str(), PEOPLE).await?)?;
    let visitors = caller.visitors(VISITORS, 0)?;
    let mut limits =
        Limits { pgbench: Pgbench::prepare(&postgres).await?, redis: RedisBenchmark::prepare(&redis).await? };
    // Those beside one limit take turns with it. Creating comes after listing, which it would make longer.
    for (limit, rpcs) in [
        (Limit::Select, &[Rpc::GetMe, Rpc::ListProperties][..]),
        (Limit::List, &[Rpc::ListSessions]),
        (Limit::Rotate, &[Rpc::Refresh]),
        (Limit::Update, &[Rpc::CreateProperty]),
    ] {
        rows.extend(beside(&caller, &visitors, &mut limits, limit, rpcs).await?);
    }
    Ok(rows)
}

async fn beside(
    caller: &Caller,
    visitors: &Arc<Vec<Visitor>>,
    limits: &mut Limits,
    limit: Limit,
    rpcs: &[Rpc],
) -> Result<Vec<Row>> {
    for rpc in rpcs {
        caller.warm(*rpc, visitors).await?;
    }
    let (mut bare, mut ours) = (Vec::new(), vec![Vec::new(); rpcs.len()]);
    for _ in 0..RUNS {
        bare.push(limits.rate(limit).await?);
        for (rpc, runs) in rpcs.iter().zip(&mut ours) {
            runs.push(caller.run(*rpc, visitors, IN_FLIGHT, RUN).await?);
        }
    }
    bare.sort_by(f64::total_cmp);
    let limit_row = Row::plain(format!("{}, {IN_FLIGHT} in flight", limit.name()), bare[RUNS / 2], "calls/s");
    let mut rows = Vec::new();
    for (rpc, runs) in rpcs.iter().zip(ours) {
        let Figures { rate, p50, p99 } = load::median(runs);
        let name = format!("{}, {IN_FLIGHT} in flight", rpc.name());
        // A refresh is a chain of calls: it stands beside its script, and is not held to it.
        let aim = (*rpc != Rpc::Refresh).then_some(AIM);
        rows.push(Row::plain(format!("{name}, on servers"), rate, "calls/s").beside(&limit_row, aim));
        rows.push(Row::plain(format!("{name}, on servers, p50"), micros(p50), "us"));
        rows.push(Row::plain(format!("{name}, on servers, p99"), micros(p99), "us"));
    }
    rows.push(limit_row);
    Ok(rows)
}

/// What limits a call.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Select,
    Update,
    List,
    Rotate,
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Self::Select => "pgbench, select only",
            Self::Update => "pgbench, simple update",
            Self::List => "redis-benchmark, list.lua",
            Self::Rotate => "redis-benchmark, rotate.lua",
        }
    }
}

struct Limits {
    pgbench: Pgbench,
    redis: RedisBenchmark,
}

impl Limits {
    async fn rate(&mut self, limit: Limit) -> Result<f64> {
        match limit {
            Limit::Select => self.pgbench.rate(Script::SelectOnly, IN_FLIGHT).await,
            Limit::Update => self.pgbench.rate(Script::SimpleUpdate, IN_FLIGHT).await,
            Limit::List => self.redis.lists(IN_FLIGHT).await,
            Limit::Rotate => self.redis.rotations(IN_FLIGHT).await,
        }
    }
}
