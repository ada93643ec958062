//! `make bench`: benchmarks, each with a baseline measured in the same run on the same machine.
//!
//! 1. startup time and resident memory of `drystone up` ([`startup`]);
//! 2. GetMe through the full stack, compared with a bare tonic echo over the same mutual TLS ([`transport`]);
//! 3. sign-ins, compared with bare Argon2id hashes ([`sign_in`]), and those with second factors, compared with sign-ins without
//!    ([`second_factors`]);
//! 4. the memory of idle connections ([`idle_connections`]);
//! 5. calls on PostgreSQL and Redis with one process per service, compared with pgbench and redis-benchmark
//!    ([`stores::rates`]);
//! 6. REST through the edge and through Envoy ([`ingress`]);
//! 7. the same calls with ten thousand and with a million users ([`stores::growth`]);
//! 8. the user service on SQLite with as many ([`stores::sqlite`]);
//! 9. an import of 100,000 accounts ([`stores::import`]);
//! 10. the evaluation of permissions, and a change of a role that 100,000 users have ([`stores::roles`]);
//! 11. messages to users, accepted and delivered ([`messages`]);
//! 12. what others notice of attacks ([`abuse`]).
//!
//! `drystone-bench PART...` runs only these benchmarks.
//!
//! Results are medians of interleaved runs. Ratios are more comparable between machines than rates.

mod abuse;
mod elsewhere;
mod idle_connections;
mod ingress;
mod load;
mod memory_user;
mod messages;
mod process;
mod report;
mod second_factors;
mod sign_in;
mod startup;
mod stores;
mod transport;

use std::{env, fs, path::Path};

use anyhow::{Context, Result, bail};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The names of the benchmarks on the command line.
const BENCHMARKS: [&str; 12] = [
    "startup",
    "transport",
    "sign-in",
    "connections",
    "ingress",
    "stores",
    "growth",
    "sqlite",
    "import",
    "roles",
    "messages",
    "abuse",
];

#[tokio::main]
async fn main() -> Result<()> {
    let selected: Vec<String> = env::args().skip(1).collect();
    if let Some(unknown) = selected.iter().find(|name| !BENCHMARKS.contains(&name.as_str())) {
        bail!("unknown benchmark `{unknown}`; use any of {}, or none for all", BENCHMARKS.join(", "));
    }
    let is_selected = |name: &str| selected.is_empty() || selected.iter().any(|selected| selected == name);

    // Before anything is measured: a run takes minutes.
    fs::create_dir_all("target").context("the directory for the results cannot be created")?;
    let mut rows = Vec::new();
    if is_selected("startup") {
        rows.extend(startup::measure()?);
    }
    if is_selected("transport") {
        rows.extend(transport::measure().await?);
    }
    if is_selected("sign-in") {
        rows.extend(sign_in::measure().await?);
        rows.extend(second_factors::measure().await?);
    }
    if is_selected("connections") {
        rows.extend(idle_connections::measure().await?);
    }
    if is_selected("ingress") {
        rows.extend(ingress::measure().await?);
    }
    if is_selected("stores") {
        rows.extend(stores::rates::measure().await?);
    }
    if is_selected("growth") {
        rows.extend(stores::growth::measure().await?);
    }
    if is_selected("sqlite") {
        rows.extend(stores::sqlite::measure().await?);
    }
    if is_selected("import") {
        rows.extend(stores::import::measure().await?);
    }
    if is_selected("roles") {
        rows.extend(stores::roles::measure().await?);
    }
    if is_selected("messages") {
        rows.extend(messages::measure().await?);
    }
    if is_selected("abuse") {
        rows.extend(abuse::measure().await?);
    }
    report::publish(&rows, Path::new("target/bench.json"))
}
