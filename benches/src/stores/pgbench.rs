//! What PostgreSQL does by itself, as its own `pgbench` measures it: the limit of what a service on it can do.

use anyhow::{Context, Result};
use drystone_backends::{Database, Postgres};

use super::servers;

/// How long it runs. The time begins before it has its connections, each of which costs a password hash; its rate does not.
const SECONDS: &str = "3";

/// Its tables, of 100,000 accounts for each step of the scale.
const SCALE: &str = "1";

/// What it does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Script {
    /// Reads one row by its key.
    SelectOnly,
    /// Changes a row, reads it and adds another, in one transaction: a commit each time.
    SimpleUpdate,
}

/// `pgbench` and its database.
#[derive(Debug)]
pub(crate) struct Pgbench {
    database: Database,
}

impl Pgbench {
    /// Makes its tables on this server.
    pub(crate) async fn prepare(server: &Postgres) -> Result<Self> {
        let database = server.database().await;
        servers::run("pgbench", &["--initialize", "--quiet", "--scale", SCALE, database.as_str()]).await?;
        Ok(Self { database })
    }

    /// Transactions a second, with so many clients and prepared statements.
    pub(crate) async fn rate(&self, script: Script, clients: usize) -> Result<f64> {
        let script = match script {
            Script::SelectOnly => "--select-only",
            Script::SimpleUpdate => "--skip-some-updates",
        };
        let clients = clients.to_string();
        let fixed = ["--no-vacuum", "--protocol", "prepared", "--jobs", "2"];
        let said = [&fixed[..], &[script, "--client", &clients, "--time", SECONDS, self.database.as_str()]].concat();
        let output = servers::run("pgbench", &said).await?;
        let rate = output.lines().find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
        rate.with_context(|| format!("pgbench named no rate: {output}"))
    }
}
