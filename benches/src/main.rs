//! `make bench`: every figure beside its limit, measured in one run on the same machine.
//!
//! 1. time to ready and resident memory of `drystone up` ([`startup`]);
//! 2. GetMe through the full stack beside a bare tonic echo over the same mutual TLS ([`transport`]);
//! 3. sign-ins beside bare Argon2id hashes ([`sign_in`]);
//! 4. calls on PostgreSQL and Redis, each service a process, beside pgbench and redis-benchmark ([`stores::rates`]);
//! 5. the same calls with ten thousand and with a million users ([`stores::growth`]).
//!
//! `drystone-bench PART...` measures these parts alone.
//!
//! Figures are medians of interleaved runs. Ratios hold across machines better than rates do.

mod load;
mod memory_user;
mod report;
mod sign_in;
mod startup;
mod stores;
mod transport;

use std::{env, path::Path};

use anyhow::{Result, bail};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What can be measured by itself.
const PARTS: [&str; 5] = ["startup", "transport", "sign-in", "stores", "growth"];

#[tokio::main]
async fn main() -> Result<()> {
    let chosen: Vec<String> = env::args().skip(1).collect();
    if let Some(unknown) = chosen.iter().find(|part| !PARTS.contains(&part.as_str())) {
        bail!("there is no part `{unknown}`; name any of {}, or none for all", PARTS.join(", "));
    }
    let is_chosen = |part: &str| chosen.is_empty() || chosen.iter().any(|one| one == part);

    let mut rows = Vec::new();
    if is_chosen("startup") {
        rows.extend(startup::measure()?);
    }
    if is_chosen("transport") {
        rows.extend(transport::measure().await?);
    }
    if is_chosen("sign-in") {
        rows.extend(sign_in::measure().await?);
    }
    if is_chosen("stores") {
        rows.extend(stores::rates::measure().await?);
    }
    if is_chosen("growth") {
        rows.extend(stores::growth::measure().await?);
    }
    report::publish(&rows, Path::new("target/bench.json"))
}
