//! Envoy in front of two instances of each service.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use drystone_tests::{Cluster, Envoy, Production, RestClient, User, wait};
use tokio::task::JoinSet;

/// Callers of idempotent RPCs.
const CALLERS: usize = 4;

/// A steady load of idempotent calls.
struct Reads {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failed: JoinSet<Vec<String>>,
}

impl Reads {
    fn start(rest: RestClient, token: &str) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut failed = JoinSet::new();
        for _ in 0..CALLERS {
            let (stop, answered, token) = (stop.clone(), answered.clone(), token.to_owned());
            failed.spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    for path in ["/v1/users/me", "/v1/properties", "/v1/sessions", "/.well-known/jwks.json"] {
                        match rest.get(path).bearer(&token).try_send().await {
                            Ok(answer) if answer.status == 200 => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            Ok(answer) => failed.push(format!("{path}: {} {}", answer.status, answer.text())),
                            Err(error) => failed.push(format!("{path}: {error}")),
                        }
                    }
                }
                failed
            });
        }
        Self { stop, answered, failed }
    }

    async fn wait_for(&self, description: &str, count: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + count;
        wait::until(description, async || (self.answered.load(Ordering::Relaxed) >= wanted).then_some(())).await;
    }

    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.failed.join_all().await.concat()
    }
}

/// Waits until Envoy calls both instances of a service.
async fn wait_until_both_are_called(envoy: &Envoy, cluster: &Cluster, service: &'static str) {
    wait::until(&format!("Envoy calls both instances of {service}"), async || {
        let clusters = envoy.admin.get("/clusters").send().await.text();
        let is_healthy = |number| {
            let address = cluster.address(service, number);
            let wanted = format!("{service}::{address}::health_flags::healthy");
            clusters.lines().any(|line| line == wanted)
        };
        (0..cluster.instances()).all(is_healthy).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_and_draining_instances_fails_no_idempotent_call_through_envoy() {
    let mesh = Production::lock().await;
    let cluster = &mesh.cluster;
    let envoy = Envoy::of_cluster(cluster).await;
    let user = User::register_at(envoy.rest()).await;
    let tokens = user.sign_in_at(envoy.rest()).await;
    for service in drystone_tests::services() {
        wait_until_both_are_called(&envoy, cluster, service).await;
    }
    let reads = Reads::start(envoy.rest(), &tokens.access);
    reads.wait_for("calls before", 100).await;
    for (number, service) in drystone_tests::services().into_iter().enumerate() {
        let number = number % cluster.instances();
        cluster.kill_one(service, number);
        reads.wait_for(&format!("calls without {service} {number}"), 100).await;
        cluster.start_one(service, number);
        cluster.wait_until_healthy().await;
        wait_until_both_are_called(&envoy, cluster, service).await;
        cluster.stop_one(service, number);
        reads.wait_for(&format!("calls after {service} {number} has drained"), 100).await;
        cluster.start_one(service, number);
        cluster.wait_until_healthy().await;
        wait_until_both_are_called(&envoy, cluster, service).await;
    }
    let failed = reads.stop().await;
    assert!(failed.is_empty(), "{} calls failed: {failed:#?}", failed.len());
}
