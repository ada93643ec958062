//! What a process has used, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// Of Linux, on all architectures (`sysconf(_SC_CLK_TCK)`).
const TICKS_PER_SECOND: f64 = 100.0;

/// The resident memory of a process, in megabytes.
pub(crate) fn resident_megabytes(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS in /proc")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no value in VmRSS")?.parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// The processor time of a process so far, user and system.
pub(crate) fn processor_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may have spaces: utime and stime are the 14th and 15th fields (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
}
