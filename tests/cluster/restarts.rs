//! Instances that are stopped, killed and started under load.

use std::time::{Duration, Instant};

use drystone_tests::{Cluster, Production, load::Load, services, wait};

use super::all_instances;

/// Virtual users of the load.
const VIRTUAL_USERS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_call() {
    let mesh = Production::lock().await;
    let cluster = &mesh.cluster;
    let load = Load::start(&cluster.edges(), VIRTUAL_USERS).await;
    for (part, number) in all_instances(cluster) {
        cluster.stop_one(part, number);
        load.wait_for_successes(&format!("calls succeed without {part} {number}"), 30).await;
        cluster.start_one(part, number);
        wait_until_used(cluster, part, number).await;
    }
    let mut report = load.stop().await;
    println!("{}", report.summary());
    report.assert_no_failures();
    report.assert_no_lost_writes().await;
}

async fn wait_until_used(cluster: &Cluster, part: &'static str, number: usize) {
    cluster.wait_until_healthy().await;
    wait::until(&format!("{part} {number} serves calls"), async || {
        (cluster.served_calls(part, number).await >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_an_instance_fails_only_calls_in_flight_and_it_serves_again_after_restart() {
    // How long callers may take to notice the closed connection.
    const MAX_DETECTION_TIME: Duration = Duration::from_millis(500);
    let mesh = Production::lock().await;
    let cluster = &mesh.cluster;
    let load = Load::start(&cluster.edges(), VIRTUAL_USERS).await;
    let mut kills = Vec::new();
    for (number, part) in services().into_iter().enumerate() {
        let number = number % cluster.instances();
        kills.push(Instant::now());
        cluster.kill_one(part, number);
        load.wait_for_successes(&format!("calls succeed without {part} {number}"), 60).await;
        cluster.start_one(part, number);
        wait_until_used(cluster, part, number).await;
    }
    let mut report = load.stop().await;
    println!("{}", report.summary());
    report.assert_failures_are_retryable();
    for failure in report.failures() {
        let is_due_to = |kill: &&Instant| failure.start < **kill + MAX_DETECTION_TIME && failure.end > **kill;
        assert!(kills.iter().any(|kill| is_due_to(&kill)), "no kill explains {failure:?}");
    }
    for kill in &kills {
        let failed =
            report.failures().filter(|call| call.start < *kill + MAX_DETECTION_TIME && call.end > *kill).count();
        assert!(failed <= VIRTUAL_USERS, "{failed} calls failed, and at most {VIRTUAL_USERS} were in flight");
    }
    report.assert_no_lost_writes().await;
}
