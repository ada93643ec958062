//! What strangers can send: each attack runs beside a steady load of other users, none of whose calls may fail.
//!
//! The attackers are at other addresses than the load: a client that shares its address with an attacker shares its limits.

mod connections;
mod denied;
mod echoes;
mod grpc;
mod guesses;
mod http1;
mod http2;
mod tls;

use std::{
    fs,
    pin::pin,
    time::{Duration, Instant},
};

use drystone_tests::{
    Edges, Mesh,
    load::{CallRecord, Load},
};

/// Virtual users of the load.
const VIRTUAL_USERS: usize = 4;

/// Calls of the load before the attack, for comparison.
const CALLS_BEFORE: usize = 200;

/// By how much the resident memory of a mesh may grow in an attack, in MiB: the budgets of requests and responses at the edge are 64 and
/// 128. None of the attacks of this suite needs more than a part of that.
const MAX_GROWTH_MIB: u64 = 200;

/// Runs an attack beside a steady load, and asserts that no call of the load fails and that memory is bounded: the bytes that the mesh
/// counts, and those of its process. Prints the load's response times, which a test does not judge: they depend on the machine.
async fn beside_load(mesh: &Mesh, attack: impl AsyncFnOnce()) {
    let load = Load::start(&Edges::new([mesh.rest()]), VIRTUAL_USERS).await;
    load.wait_for_successes("calls before the attack", CALLS_BEFORE).await;
    let before_mib = resident_mib(mesh);
    let start = Instant::now();
    let mut most_mib = before_mib;
    let mut attacking = pin!(attack());
    loop {
        tokio::select! {
            () = &mut attacking => break,
            () = tokio::time::sleep(Duration::from_millis(100)) => most_mib = most_mib.max(resident_mib(mesh)),
        }
    }
    let end = Instant::now();
    most_mib = most_mib.max(resident_mib(mesh));
    println!("resident memory before: {before_mib} MiB, at most {most_mib} MiB");
    assert!(most_mib <= before_mib + MAX_GROWTH_MIB, "{before_mib} MiB before, {most_mib} MiB in the attack");
    load.wait_for_successes("calls after the attack", 50).await;
    let report = load.stop().await;
    let p99 = |filter: &dyn Fn(&CallRecord) -> bool| {
        let mut times: Vec<Duration> =
            report.calls.iter().filter(|call| filter(call)).map(|call| call.end - call.start).collect();
        times.sort_unstable();
        (times.len(), times.get(times.len() * 99 / 100).copied())
    };
    let before = p99(&|call| call.end < start);
    let during = p99(&|call| call.start >= start && call.end <= end);
    println!("p99 before: {before:?}, during {:?} of the attack: {during:?}", end - start);
    report.assert_no_failures();
}

/// The resident memory of the process of a mesh.
fn resident_mib(mesh: &Mesh) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mesh.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() >> 10
}
