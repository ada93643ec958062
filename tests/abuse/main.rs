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
mod raw;

use std::time::{Duration, Instant};

use drystone_tests::{
    Edges, Mesh,
    load::{CallRecord, Load},
};

/// Virtual users of the load.
const VIRTUAL_USERS: usize = 4;

/// Calls of the load before the attack, for comparison.
const CALLS_BEFORE: usize = 200;

/// Runs an attack beside a steady load, and asserts that no call of the load fails. Prints the load's response times, which a
/// test does not judge: they depend on the machine.
async fn beside_load(mesh: &Mesh, attack: impl AsyncFnOnce()) {
    let load = Load::start(&Edges::new([mesh.rest()]), VIRTUAL_USERS).await;
    load.wait_for_successes("calls before the attack", CALLS_BEFORE).await;
    let start = Instant::now();
    attack().await;
    let end = Instant::now();
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
