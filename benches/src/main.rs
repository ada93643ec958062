//! `make bench`: every figure beside its limit, measured in one run on the same machine.
//!
//! 1. GetMe through the full stack beside a bare tonic echo over the same mutual TLS ([`transport`]);
//! 2. sign-ins beside bare Argon2id hashes ([`sign_in`]);
//! 3. time to ready and resident memory of `drystone up` ([`startup`]).
//!
//! Figures are medians of interleaved runs. Ratios hold across machines better than rates do.

mod load;
mod memory_user;
mod report;
mod sign_in;
mod startup;
mod transport;

use std::path::Path;

use anyhow::Result;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let mut rows = startup::measure()?;
    rows.extend(transport::measure().await?);
    rows.extend(sign_in::measure().await?);
    report::publish(&rows, Path::new("target/bench.json"))
}
