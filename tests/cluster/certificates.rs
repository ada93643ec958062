//! Certificates and roots that are replaced under load.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use drystone_tests::{Cluster, Envoy, Production, User, certs::Certificates, load::Load, process, wait};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{
    all_instances,
    envoy::{Reads, wait_until_both_are_called},
};

/// Virtual users of the load.
const VIRTUAL_USERS: usize = 6;

/// The directories of the certificates of a cluster, one for each instance number; the CA is in the first one.
struct Directories(Vec<PathBuf>);

impl Directories {
    fn of(cluster: &Cluster) -> Self {
        Self((0..cluster.instances()).map(|number| cluster.certificates_of(number).directory().to_owned()).collect())
    }

    /// Takes a step of the rotation of the root, and hands its outcome to all instances.
    fn rotate(&self, step: &str) {
        let ca = &self.0[0];
        run(process::drystone(&["certs", "rotate-root", step, "--certs-dir"]).arg(ca));
        for directory in &self.0[1..] {
            copy_ca(ca, directory);
            if step == "issue" {
                let _ = Certificates::generate_in(directory);
            }
        }
    }
}

/// Replaces the CA in a directory, each file at once.
fn copy_ca(from: &std::path::Path, to: &std::path::Path) {
    for name in ["ca.key", "ca.pem"] {
        let temporary = to.join(format!(".{name}"));
        fs::copy(from.join(name), &temporary).unwrap();
        fs::rename(temporary, to.join(name)).unwrap();
    }
}

fn run(command: &mut std::process::Command) {
    let ended = process::run_to_end(command);
    assert!(ended.status.success(), "{ended:?}");
}

async fn refusals(cluster: &Cluster, part: &'static str, number: usize) -> f64 {
    let labels = [("what", "certificate"), ("outcome", "refused")];
    cluster.metrics(part, number).await.sum("drystone_certificate_loads_total", &labels)
}

/// How often each instance has loaded certificates.
async fn loads(cluster: &Cluster) -> BTreeMap<(&'static str, usize), f64> {
    let labels = [("what", "certificate"), ("outcome", "loaded")];
    let mut loads = BTreeMap::new();
    for (part, number) in all_instances(cluster) {
        let count = cluster.metrics(part, number).await.sum("drystone_certificate_loads_total", &labels);
        loads.insert((part, number), count);
    }
    loads
}

/// Waits until every instance uses files that were written after it had loaded `before`, and no other ones follow.
async fn wait_for_loads(cluster: &Cluster, before: &BTreeMap<(&'static str, usize), f64>) {
    let mut last = BTreeMap::new();
    wait::until("every instance has loaded its certificates", async || {
        let now = loads(cluster).await;
        let is_complete = before.iter().all(|(instance, count)| now[instance] > *count);
        // Longer than `certificates.check_interval`.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let is_settled = loads(cluster).await == now && now == last;
        last = now;
        (is_complete && is_settled).then_some(())
    })
    .await;
}

/// The certificates that Envoy uses, as it describes them.
async fn certificates_of_envoy(envoy: &Envoy) -> String {
    envoy.admin.get("/certs").send().await.expect(200).text()
}

/// Waits until Envoy uses others.
async fn wait_for_envoy(envoy: &Envoy, before: &str) -> String {
    wait::until("Envoy uses the new certificates", async || {
        let now = certificates_of_envoy(envoy).await;
        (now != before).then_some(now)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_the_root_rotate_under_load_without_a_failed_call() {
    let mesh = Production::lock().await;
    let cluster = &mesh.cluster;
    let directories = Directories::of(cluster);
    let envoy = Envoy::of_cluster(cluster).await;
    for service in drystone_tests::services() {
        wait_until_both_are_called(&envoy, cluster, service).await;
    }
    let user = User::register_at(envoy.rest()).await;
    let tokens = user.sign_in_at(envoy.rest()).await;
    let load = Load::start(&cluster.edges(), VIRTUAL_USERS).await;
    let reads = Reads::start(&[envoy.rest()], &tokens.access);

    let mut seen = certificates_of_envoy(&envoy).await;
    let before = loads(cluster).await;
    for directory in &directories.0 {
        let _ = Certificates::generate_in(directory);
    }
    wait_for_loads(cluster, &before).await;
    seen = wait_for_envoy(&envoy, &seen).await;
    load.wait_for_successes("calls succeed with new certificates", 60).await;
    let old = cluster.certificates().of("edge");
    for step in ["add", "issue", "remove"] {
        let before = loads(cluster).await;
        directories.rotate(step);
        wait_for_loads(cluster, &before).await;
        seen = wait_for_envoy(&envoy, &seen).await;
        reads.wait_for(&format!("calls through Envoy succeed after `{step}`"), 100).await;
        load.wait_for_successes(&format!("calls succeed after `{step}`"), 60).await;
    }
    reads.stop().await;
    let mut report = load.stop().await;
    println!("{}", report.summary());
    report.assert_no_failures();
    report.assert_no_lost_writes().await;
    cluster.wait_until_healthy().await;

    // The old root is trusted no longer.
    let channel = drystone_tests::grpc::channel(cluster.address("user", 0), "user", cluster.certificates(), Some(old));
    let request = HealthCheckRequest { service: String::new() };
    HealthClient::new(channel).check(request).await.expect_err("a certificate of the old root is refused");
    let labels = [("reason", "unknown_issuer")];
    wait::until("the refused handshake is counted", async || {
        (cluster.metrics("user", 0).await.sum("drystone_handshakes_refused_total", &labels) >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_certificate_is_refused_and_the_old_one_serves_on() {
    let mesh = Production::lock().await;
    let cluster = &mesh.cluster;
    let [certificate, _] = cluster.certificates_of(1).files_of("property");
    let valid = fs::read(certificate).unwrap();
    let refused = refusals(cluster, "property", 1).await;
    // That of another key.
    fs::copy(&cluster.certificates_of(0).files_of("user")[0], certificate).unwrap();
    wait::until("the certificate is refused", async || {
        (refusals(cluster, "property", 1).await > refused).then_some(())
    })
    .await;
    let log = cluster.log("property", 1);
    assert!(log.contains("new certificate refused; the old one stays in use"), "{log}");
    let health = cluster.health("property", 1).await;
    assert_eq!(health["components"]["property certificate"]["state"], "degraded", "{health}");
    let load = Load::start(&cluster.edges(), VIRTUAL_USERS).await;
    load.wait_for_successes("calls succeed", 60).await;
    fs::write(certificate, valid).unwrap();
    let mut report = load.stop().await;
    report.assert_no_failures();
    report.assert_no_lost_writes().await;
    cluster.wait_until_healthy().await;
}
