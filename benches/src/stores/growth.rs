//! Latency of the same calls with small and large stores of users, sessions and properties.
//!
//! Two meshes, each with its own database and Redis, are measured alternately.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use drystone_backends::{Database, Postgres, Redis};

use super::{
    calls::{BenchRpc, RpcClient},
    processes::MeshProcesses,
    seed, servers,
    users::{ActiveUser, SeedUsers},
};
use crate::report::{Measurement, micros};

/// A size of the stores: the number of users, and of their sessions and properties.
struct StoreSize {
    users: u64,
    label: &'static str,
}

const SMALL: StoreSize = StoreSize { users: 10_000, label: "10 thousand users" };
const LARGE: StoreSize = StoreSize { users: 1_000_000, label: "1 million users" };

/// The number of users in one run, with about one call each. A service caches 10,000 verified tokens.
///
/// Every run has other users, whose rows are read for the first time: with the same users in every run, their rows
/// would be cached whatever the size of the stores.
const ACTIVE_USERS: u64 = 4_000;
const IN_FLIGHT: usize = 8;
const RUN: Duration = Duration::from_secs(1);
const RUNS: usize = 5;

/// The maximum ratio of the 99th percentiles.
const AIM: f64 = 1.5;

/// CreateProperty is last, since it makes the lists and claims longer.
const RPCS: [BenchRpc; 9] = [
    BenchRpc::GetMe,
    BenchRpc::LookUpForSignIn,
    BenchRpc::BatchCheck,
    BenchRpc::ListUsersDeepPage,
    BenchRpc::SearchUsers,
    BenchRpc::ListSessions,
    BenchRpc::ListProperties,
    BenchRpc::Refresh,
    BenchRpc::CreateProperty,
];

/// Measures both.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let postgres = servers::postgres().await;
    let (small, _) = SeededMesh::start(SMALL.users, &postgres).await?;
    let (large, seeding) = SeededMesh::start(LARGE.users, &postgres).await?;
    let mut rows = vec![Measurement::plain(format!("seeding {}", LARGE.label), seeding.as_secs_f64(), "s").under(60.0)];
    for rpc in RPCS {
        let (mut small_runs, mut large_runs) = (Vec::new(), Vec::new());
        for round in 0..RUNS {
            small_runs.push(small.p99(rpc, round).await?);
            large_runs.push(large.p99(rpc, round).await?);
        }
        let name = |size: StoreSize| format!("{}, {}, {IN_FLIGHT} in flight, p99", rpc.name(), size.label);
        let baseline = Measurement::plain(name(SMALL), micros(median(small_runs)), "us");
        rows.push(Measurement::plain(name(LARGE), micros(median(large_runs)), "us").within(&baseline, AIM));
        rows.push(baseline);
    }
    Ok(rows)
}

fn median(mut runs: Vec<Duration>) -> Duration {
    runs.sort_unstable();
    runs[runs.len() / 2]
}

/// A mesh with seeded stores. Drop order: the mesh before its database and Redis.
struct SeededMesh {
    client: RpcClient,
    /// The users of each round.
    active_users: Vec<Arc<Vec<ActiveUser>>>,
    _processes: MeshProcesses,
    _database: Database,
    _redis: Redis,
}

impl SeededMesh {
    /// Starts a mesh and seeds its stores; returns the duration of seeding too.
    async fn start(users: u64, postgres: &Postgres) -> Result<(Self, Duration)> {
        let redis = servers::redis().await?;
        let database = postgres.database().await;
        let processes = MeshProcesses::start(database.as_str(), redis.url());
        let seeding = seed::fill(database.as_str(), redis.url(), users).await?;
        let client = RpcClient::new(&processes, SeedUsers::of(database.as_str(), users).await?)?;
        let rounds = 0..RUNS as u64;
        let active_users = rounds.map(|round| client.active_users(ACTIVE_USERS, 31 * round)).collect::<Result<_>>()?;
        Ok((Self { client, active_users, _processes: processes, _database: database, _redis: redis }, seeding))
    }

    async fn p99(&self, rpc: BenchRpc, round: usize) -> Result<Duration> {
        let active_users = self.active_users.get(round).context("no such round")?;
        self.client.warm_up(rpc, active_users).await?;
        Ok(self.client.run(rpc, active_users, IN_FLIGHT, RUN).await?.p99)
    }
}
