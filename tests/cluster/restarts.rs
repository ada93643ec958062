//! Instances that are stopped, killed and started while they are used.

use std::time::{Duration, Instant};

use drystone_tests::{Cluster, Production, load::Load, services, wait};

use super::everything;

/// How many people make the load.
const PEOPLE: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_can_be_restarted_one_after_the_other_and_no_call_fails() {
    let mesh = Production::exclusively().await;
    let cluster = &mesh.cluster;
    let load = Load::start(&cluster.front(), PEOPLE).await;
    for (part, number) in everything(cluster) {
        cluster.stop_one(part, number);
        load.until_served(&format!("{part} goes on without {number}"), 30).await;
        cluster.start_one(part, number);
        is_used_again(cluster, part, number).await;
    }
    let mut outcome = load.stop().await;
    println!("{}", outcome.summary());
    outcome.assert_all_served();
    outcome.assert_kept().await;
}

async fn is_used_again(cluster: &Cluster, part: &'static str, number: usize) {
    cluster.until_well().await;
    wait::until(&format!("{part} {number} is used again"), async || {
        (cluster.served(part, number).await >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_instance_costs_the_calls_in_flight_alone_and_is_used_again_when_it_is_back() {
    // How long it may take until everybody has heard that the connection is gone.
    const NOTICE: Duration = Duration::from_millis(500);
    let mesh = Production::exclusively().await;
    let cluster = &mesh.cluster;
    let load = Load::start(&cluster.front(), PEOPLE).await;
    let mut kills = Vec::new();
    for (number, part) in services().into_iter().enumerate() {
        let number = number % cluster.instances();
        kills.push(Instant::now());
        cluster.kill_one(part, number);
        load.until_served(&format!("{part} goes on without {number}"), 60).await;
        cluster.start_one(part, number);
        is_used_again(cluster, part, number).await;
    }
    let mut outcome = load.stop().await;
    println!("{}", outcome.summary());
    outcome.assert_refused_in_order();
    for refusal in outcome.refusals() {
        let is_of = |kill: &&Instant| refusal.begun < **kill + NOTICE && refusal.ended > **kill;
        assert!(kills.iter().any(|kill| is_of(&kill)), "nobody had been killed: {refusal:?}");
    }
    for kill in &kills {
        let hit = outcome.refusals().filter(|done| done.begun < *kill + NOTICE && done.ended > *kill).count();
        assert!(hit <= PEOPLE, "{hit} were refused, and {PEOPLE} at most were in flight");
    }
    outcome.assert_kept().await;
}
