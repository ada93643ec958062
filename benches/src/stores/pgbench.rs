//! The throughput of PostgreSQL alone, measured by `pgbench`: the upper bound for a service on it.

use anyhow::{Context, Result};
use drystone_backends::{Database, Postgres};

use super::servers;

/// The duration of a run. It includes connecting, with a password hash per connection; the reported rate does not.
const SECONDS: &str = "3";

/// The scale factor: 100,000 accounts each.
const SCALE: &str = "1";

/// A built-in script of `pgbench`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Script {
    /// Reads one row by primary key.
    SelectOnly,
    /// Updates a row, reads it and inserts another, in one transaction.
    SimpleUpdate,
}

/// `pgbench` and its database.
#[derive(Debug)]
pub(crate) struct Pgbench {
    database: Database,
}

impl Pgbench {
    /// Creates a database with its tables on this server.
    pub(crate) async fn prepare(server: &Postgres) -> Result<Self> {
        let database = server.database().await;
        servers::run("pgbench", &["--initialize", "--quiet", "--scale", SCALE, database.as_str()]).await?;
        Ok(Self { database })
    }

    /// Transactions per second with this number of clients and prepared statements.
    pub(crate) async fn rate(&self, script: Script, clients: usize) -> Result<f64> {
        let script = match script {
            Script::SelectOnly => "--select-only",
            Script::SimpleUpdate => "--skip-some-updates",
        };
        let clients = clients.to_string();
        let fixed = ["--no-vacuum", "--protocol", "prepared", "--jobs", "2"];
        let arguments =
            [&fixed[..], &[script, "--client", &clients, "--time", SECONDS, self.database.as_str()]].concat();
        let output = servers::run("pgbench", &arguments).await?;
        let rate = output.lines().find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
        rate.with_context(|| format!("no rate in the output of pgbench: {output}"))
    }
}
