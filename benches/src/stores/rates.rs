//! Throughput of calls on PostgreSQL and Redis, compared with the throughput of the stores alone at the same
//! concurrency.

use std::{sync::Arc, time::Duration};

use anyhow::Result;

use super::{
    calls::{BenchRpc, RpcClient},
    pgbench::{Pgbench, Script},
    processes::MeshProcesses,
    redis_benchmark::RedisBenchmark,
    seed, servers,
    users::{ActiveUser, SeedUsers},
};
use crate::{
    load::{self, LoadResult},
    report::{Measurement, micros},
};

/// The number of stored users, sessions and properties.
const USERS: u64 = 10_000;
/// The number of users that call. Divisible by `IN_FLIGHT`, so that no two concurrent calls have the same user.
const ACTIVE_USERS: u64 = 2_048;
/// The concurrency, as in the transport benchmark.
const IN_FLIGHT: usize = 64;
const RUN: Duration = Duration::from_secs(1);
const RUNS: usize = 5;

/// The target ratio of a call of one statement to its baseline.
const AIM: f64 = 0.4;

/// Measures the rates, and the resident memory of each process before the first call.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let postgres = servers::postgres().await;
    let redis = servers::redis().await?;
    let database = postgres.database().await;
    let processes = MeshProcesses::start(database.as_str(), redis.url());
    let mut rows = Vec::new();
    for (name, memory) in processes.memory()? {
        rows.push(
            Measurement::plain(format!("drystone serve {name}, resident memory when ready"), memory, "MB").under(30.0),
        );
    }

    seed::fill(database.as_str(), redis.url(), USERS).await?;
    let client = RpcClient::new(&processes, SeedUsers::of(database.as_str(), USERS).await?)?;
    let active_users = client.active_users(ACTIVE_USERS, 0)?;
    let mut baselines =
        Baselines { pgbench: Pgbench::prepare(&postgres).await?, redis: RedisBenchmark::prepare(&redis).await? };
    // RPCs alternate with their baseline. CreateProperty runs after ListProperties, whose responses it would enlarge.
    for (baseline, rpcs) in [
        (Baseline::Select, &[BenchRpc::GetMe, BenchRpc::ListProperties][..]),
        (Baseline::List, &[BenchRpc::ListSessions]),
        (Baseline::Rotate, &[BenchRpc::Refresh]),
        (Baseline::Update, &[BenchRpc::CreateProperty]),
    ] {
        rows.extend(compare(&client, &active_users, &mut baselines, baseline, rpcs).await?);
    }
    Ok(rows)
}

async fn compare(
    client: &RpcClient,
    active_users: &Arc<Vec<ActiveUser>>,
    baselines: &mut Baselines,
    baseline: Baseline,
    rpcs: &[BenchRpc],
) -> Result<Vec<Measurement>> {
    for rpc in rpcs {
        client.warm_up(*rpc, active_users).await?;
    }
    let (mut baseline_rates, mut results) = (Vec::new(), vec![Vec::new(); rpcs.len()]);
    for _ in 0..RUNS {
        baseline_rates.push(baselines.rate(baseline).await?);
        for (rpc, runs) in rpcs.iter().zip(&mut results) {
            runs.push(client.run(*rpc, active_users, IN_FLIGHT, RUN).await?);
        }
    }
    baseline_rates.sort_by(f64::total_cmp);
    let name = format!("{}, {IN_FLIGHT} in flight", baseline.name());
    let baseline_row = Measurement::plain(name, baseline_rates[RUNS / 2], "calls/s");
    let mut rows = Vec::new();
    for (rpc, runs) in rpcs.iter().zip(results) {
        let LoadResult { rate, p50, p99 } = load::median(runs);
        let name = format!("{}, {IN_FLIGHT} in flight", rpc.name());
        // A refresh is a chain of calls, so it has no target ratio.
        let aim = (*rpc != BenchRpc::Refresh).then_some(AIM);
        rows.push(Measurement::plain(format!("{name}, on servers"), rate, "calls/s").compared_with(&baseline_row, aim));
        rows.push(Measurement::plain(format!("{name}, on servers, p50"), micros(p50), "us"));
        rows.push(Measurement::plain(format!("{name}, on servers, p99"), micros(p99), "us"));
    }
    rows.push(baseline_row);
    Ok(rows)
}

/// The store operation that a call is compared with.
#[derive(Debug, Clone, Copy)]
enum Baseline {
    Select,
    Update,
    List,
    Rotate,
}

impl Baseline {
    fn name(self) -> &'static str {
        match self {
            Self::Select => "pgbench, select only",
            Self::Update => "pgbench, simple update",
            Self::List => "redis-benchmark, list.lua",
            Self::Rotate => "redis-benchmark, rotate.lua",
        }
    }
}

struct Baselines {
    pgbench: Pgbench,
    redis: RedisBenchmark,
}

impl Baselines {
    async fn rate(&mut self, baseline: Baseline) -> Result<f64> {
        match baseline {
            Baseline::Select => self.pgbench.rate(Script::SelectOnly, IN_FLIGHT).await,
            Baseline::Update => self.pgbench.rate(Script::SimpleUpdate, IN_FLIGHT).await,
            Baseline::List => self.redis.lists(IN_FLIGHT).await,
            Baseline::Rotate => self.redis.rotations(IN_FLIGHT).await,
        }
    }
}
