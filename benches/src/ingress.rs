//! The edge beside Envoy in front of the same services: REST GetMe with a token that is checked and limits that are counted,
//! from 1, 32 and 256 connections.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use drystone_tests::{Envoy, Mesh, User, services};

use crate::{
    process::{processor_seconds, resident_megabytes},
    report::Measurement,
};

/// The connections of a run.
const CONNECTIONS: [u32; 3] = [1, 32, 256];

/// Runs of each, in turns; the median counts.
const RUNS: usize = 3;

/// Of a run.
const SECONDS: u32 = 4;

/// As many worker threads as the edge has on two cores.
const WORKERS: u32 = 2;

/// Counted for each request, and never reached.
const PER_MINUTE: (&str, &str) = ("limits.requests_per_minute", "1000000");

/// The result of one run of `wrk`.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Requests a second.
    rate: f64,
    /// The 99th percentile, in milliseconds.
    p99: f64,
    /// Processor time of the server for each request, in microseconds.
    cpu: f64,
}

/// Measures both in turns.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let mesh = Mesh::start();
    // In a process of its own, as Envoy is.
    let mut edge = Mesh::setup().serve(&["edge"], mesh.certificates());
    for service in services() {
        edge = edge.set(&format!("peers.{service}"), &mesh.grpc_address(service).to_string());
    }
    let issuer = format!("http://{}", mesh.rest().address());
    let edge = edge.with_default_rate_limits().set("issuer", &issuer).set(PER_MINUTE.0, PER_MINUTE.1).start();
    let envoy = Envoy::with_workers(WORKERS, &mesh, &[PER_MINUTE]).await;
    let user = User::register_at(mesh.rest()).await;
    let token = user.sign_in_at(mesh.rest()).await.access;

    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        let (mut by_edge, mut by_envoy) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            by_edge.push(run(edge.rest().address(), edge.id(), &token, connections)?);
            by_envoy.push(run(envoy.address, envoy.process.id(), &token, connections)?);
        }
        let row = |name: &str, unit, of: fn(&Run) -> f64| {
            let median = |runs: &[Run]| {
                let mut values: Vec<f64> = runs.iter().map(of).collect();
                values.sort_by(f64::total_cmp);
                values[RUNS / 2]
            };
            let name = |server| format!("GetMe over REST, {server}, {connections} connections{name}");
            (
                Measurement::plain(name("edge"), median(&by_edge), unit),
                Measurement::plain(name("Envoy 1.40"), median(&by_envoy), unit),
            )
        };
        let (edge, envoy) = row("", "calls/s", |run| run.rate);
        rows.extend([edge.compared_with(&envoy, Some(1.6)), envoy]);
        let (edge, envoy) = row(", p99", "ms", |run| run.p99);
        rows.extend([edge.within(&envoy, 0.5), envoy]);
        let (edge, envoy) = row(", processor time", "us", |run| run.cpu);
        rows.extend([edge.compared_with(&envoy, None), envoy]);
    }
    let memory = Measurement::plain("resident memory after that, edge", resident_megabytes(edge.id())?, "MB");
    let envoys =
        Measurement::plain("resident memory after that, Envoy 1.40", resident_megabytes(envoy.process.id())?, "MB");
    rows.extend([memory.within(&envoys, 0.5), envoys]);
    Ok(rows)
}

/// Runs `wrk` with one thread, so that it leaves most of two cores to the servers.
fn run(server: SocketAddr, id: u32, token: &str, connections: u32) -> Result<Run> {
    let before = processor_seconds(id)?;
    let output = Command::new("wrk")
        .args(["--threads", "1", "--latency", "--timeout", "10s"])
        .args(["--connections", &connections.to_string(), "--duration", &format!("{SECONDS}s")])
        .args(["--header", &format!("authorization: Bearer {token}")])
        .arg(format!("http://{server}/v1/users/me"))
        .stderr(Stdio::inherit())
        .output()
        .context("wrk not found: install it (Debian: apt-get install wrk)")?;
    let used = processor_seconds(id)? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && !text.contains("Non-2xx"), "{text}");
    // At the start of a line: a share of another one may end with 99%.
    let after = |name: &str| -> Result<&str> {
        let rest = text.lines().find_map(|line| line.trim_start().strip_prefix(name));
        let rest = rest.with_context(|| format!("no `{name}` in {text}"))?;
        rest.split_whitespace().next().context("no value")
    };
    let rate: f64 = after("Requests/sec:")?.parse()?;
    let requests = rate * f64::from(SECONDS);
    Ok(Run { rate, p99: milliseconds(after("99%")?)?, cpu: used * 1e6 / requests })
}

/// `850.00us`, `1.23ms` or `1.20s`, as wrk prints times.
fn milliseconds(text: &str) -> Result<f64> {
    let (number, unit) = text.split_at(text.find(|letter: char| letter.is_alphabetic()).context("no unit")?);
    let number: f64 = number.parse()?;
    Ok(match unit {
        "us" => number / 1e3,
        "ms" => number,
        _ => number * 1e3,
    })
}
