//! The startup time of `drystone up`, and its resident memory when ready.

use std::{fs, time::Instant};

use anyhow::{Context, Result};
use drystone_tests::{Home, Mesh};

use crate::report::Measurement;

const RUNS: usize = 5;

/// Starts the mesh with an empty data directory, then restarts it several times with its data.
pub(crate) fn measure() -> Result<Vec<Measurement>> {
    let (first, _, mut home) = start(Home::new())?;
    let mut restarts = Vec::new();
    for _ in 0..RUNS {
        let (time, memory, next_home) = start(home)?;
        restarts.push((time, memory));
        home = next_home;
    }
    restarts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (time, memory) = restarts[RUNS / 2];
    Ok(vec![
        Measurement::plain("drystone up, first start to ready", first, "ms").under(500.0),
        Measurement::plain("drystone up, start to ready", time, "ms").under(500.0),
        Measurement::plain("drystone up, resident memory when ready", memory, "MB").under(60.0),
    ])
}

/// Starts and stops a mesh; returns milliseconds until ready, resident megabytes, and its directory.
fn start(home: Home) -> Result<(f64, f64, Home)> {
    let before = Instant::now();
    let mesh = Mesh::setup().home(home).start();
    let time = before.elapsed().as_secs_f64() * 1e3;
    let memory = resident_megabytes(mesh.id())?;
    Ok((time, memory, mesh.stop()))
}

/// The resident memory of a process, in megabytes.
pub(crate) fn resident_megabytes(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS in /proc")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no value in VmRSS")?.parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}
