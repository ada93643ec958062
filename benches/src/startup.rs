//! How long `drystone up` takes until it is ready, and how much memory it then holds.

use std::{fs, time::Instant};

use anyhow::{Context, Result};
use drystone_tests::{Home, Mesh};

use crate::report::Row;

const RUNS: usize = 5;

/// Starts the mesh on an empty data directory, and then a few times on what that left, as a restart does.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let (first, _, mut home) = start(Home::new())?;
    let mut again = Vec::new();
    for _ in 0..RUNS {
        let (time, memory, left) = start(home)?;
        again.push((time, memory));
        home = left;
    }
    again.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (time, memory) = again[RUNS / 2];
    Ok(vec![
        Row::plain("drystone up, first start to ready", first, "ms").under(500.0),
        Row::plain("drystone up, start to ready", time, "ms").under(500.0),
        Row::plain("drystone up, resident memory when ready", memory, "MB").under(60.0),
    ])
}

/// Milliseconds to ready, megabytes resident, and what is left for the next start.
fn start(home: Home) -> Result<(f64, f64, Home)> {
    let before = Instant::now();
    let mesh = Mesh::setup().home(home).start();
    let time = before.elapsed().as_secs_f64() * 1e3;
    let memory = resident_megabytes(mesh.id())?;
    Ok((time, memory, mesh.stop()))
}

/// What a process holds, in megabytes.
pub(crate) fn resident_megabytes(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS in /proc")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no figure in VmRSS")?.parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}
