//! Envoy in front of two instances of each service.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use drystone_tests::{
    Cluster, Envoy, Home, Mesh, Production, RestClient, Setup, User, ports::free_addresses, process, wait, walk::Walk,
};
use tokio::task::JoinSet;

/// Callers of idempotent RPCs.
const CALLERS: usize = 4;

/// A steady load of idempotent calls.
pub(super) struct Reads {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    /// Which of the servers is called.
    server: Arc<AtomicUsize>,
    /// How many callers have seen a change of it.
    switched: Arc<AtomicUsize>,
    failed: JoinSet<Vec<String>>,
}

impl Reads {
    /// Calls the first of these servers.
    pub(super) fn start(servers: &[RestClient], token: &str) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (server, switched) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let mut failed = JoinSet::new();
        for _ in 0..CALLERS {
            let (stop, answered, token) = (stop.clone(), answered.clone(), token.to_owned());
            let (server, switched, servers) = (server.clone(), switched.clone(), servers.to_vec());
            failed.spawn(async move {
                let (mut failed, mut called) = (Vec::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let index = server.load(Ordering::Relaxed);
                    if index != called {
                        called = index;
                        switched.fetch_add(1, Ordering::Relaxed);
                    }
                    let rest = servers[index];
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
        Self { stop, answered, server, switched, failed }
    }

    pub(super) async fn wait_for(&self, description: &str, count: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + count;
        wait::until(description, async || (self.answered.load(Ordering::Relaxed) >= wanted).then_some(())).await;
    }

    pub(super) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.failed.join_all().await.concat();
        assert!(failed.is_empty(), "{} calls failed: {failed:#?}", failed.len());
    }
}

/// Waits until Envoy calls all these instances.
async fn wait_until_called(envoy: &Envoy, name: &str, addresses: &[SocketAddr]) {
    wait::until(&format!("Envoy calls each instance of {name}"), async || {
        let clusters = envoy.admin.get("/clusters").send().await.text();
        let is_healthy = |address: &SocketAddr| {
            let wanted = format!("{name}::{address}::health_flags::healthy");
            clusters.lines().any(|line| line == wanted)
        };
        addresses.iter().all(is_healthy).then_some(())
    })
    .await;
}

pub(super) async fn wait_until_both_are_called(envoy: &Envoy, cluster: &Cluster, service: &'static str) {
    let addresses: Vec<_> = (0..cluster.instances()).map(|number| cluster.address(service, number)).collect();
    wait_until_called(envoy, service, &addresses).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_example_returns_the_same_on_two_instances_as_on_one_without_envoy() {
    let mesh = Production::lock().await;
    let (envoy, single, home) = (Envoy::of_cluster(&mesh.cluster).await, Mesh::start(), Home::new());
    for service in drystone_tests::services() {
        wait_until_both_are_called(&envoy, &mesh.cluster, service).await;
    }
    let expected = Walk::run(single.rest().address(), single.home().path());
    assert_eq!(Walk::run(envoy.address, home.path()).without_differences_of_envoy(), expected);
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
    let reads = Reads::start(&[envoy.rest()], &tokens.access);
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
    reads.stop().await;
}

/// An edge that learns the client's address from Envoy.
fn edge(cluster: &Cluster, address: SocketAddr) -> Setup {
    cluster
        .extra_instance("edge")
        .set("edge.trusted_proxies", r#"["127.0.0.1"]"#)
        .set("edge.proxy_protocol", "true")
        .set("edge.listen", &address.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_and_draining_edges_and_draining_envoy_fails_no_idempotent_call() {
    let mesh = Production::lock().await;
    let cluster = &mesh.cluster;
    let addresses: [SocketAddr; 2] = free_addresses();
    let mut edges: Vec<Mesh> = addresses.iter().map(|address| edge(cluster, *address).start()).collect();
    let settings = [("edge.trusted_proxies", r#"["127.0.0.1"]"#), ("edge.proxy_protocol", "true")];
    let mut envoys = [Envoy::of_edges(&addresses, &settings).await, Envoy::of_edges(&addresses, &settings).await];
    for envoy in &envoys {
        wait_until_called(envoy, "edge", &addresses).await;
    }

    let user = User::register_at(envoys[0].rest()).await;
    let tokens = user.sign_in_at(envoys[0].rest()).await;
    let reads = Reads::start(&envoys.each_ref().map(Envoy::rest), &tokens.access);
    reads.wait_for("calls before", 100).await;
    for number in 0..2 {
        drop(edges.remove(0).kill());
        reads.wait_for(&format!("calls without edge {number}"), 100).await;
        let restarted = edge(cluster, addresses[number]).start();
        wait_until_called(&envoys[0], "edge", &addresses).await;
        drop(restarted.stop());
        reads.wait_for(&format!("calls after edge {number} has drained"), 100).await;
        edges.push(edge(cluster, addresses[number]).start());
        wait_until_called(&envoys[0], "edge", &addresses).await;
    }

    // As docs/envoy.md has it: fail the health check, wait until nobody calls, stop.
    let [first, _] = &mut envoys;
    first.rest().get("/health").send().await.expect(200);
    first.admin.post("/healthcheck/fail", serde_json::json!({})).send().await.expect(200);
    for path in ["/health", "/health?from=balancer"] {
        first.rest().get(path).send().await.expect(503);
    }
    reads.wait_for("calls of an Envoy that is drained", 100).await;
    reads.server.store(1, Ordering::Relaxed);
    let switched = || reads.switched.load(Ordering::Relaxed);
    wait::until("all callers call the other one", async || (switched() == CALLERS).then_some(())).await;
    wait::until("nobody calls", async || {
        let stats = first.admin.get("/stats?filter=http.edge.downstream_rq_active").send().await.text();
        stats.trim().ends_with(": 0").then_some(())
    })
    .await;
    process::send("TERM", first.process.id());
    wait::until("Envoy has exited", async || first.process.exit_status()).await;
    reads.wait_for("calls of the other Envoy", 100).await;
    reads.stop().await;
}
