//! What operators rely on: certificates that are replaced on disk, the access log, and the key set.

use drystone_tests::{Edges, Envoy, Mesh, User, load::Load, logs, process, wait};
use serde_json::Value;

/// The serial numbers of the certificates with which Envoy calls.
async fn serials(envoy: &Envoy) -> Vec<String> {
    let certificates = envoy.admin.get("/certs").send().await.expect(200).json();
    let chains = certificates["certificates"].as_array().unwrap().iter();
    let chains = chains.flat_map(|entry| entry["cert_chain"].as_array().cloned().unwrap_or_default());
    let mut serials: Vec<String> = chains.map(|chain| chain["serial_number"].as_str().unwrap().to_owned()).collect();
    serials.sort();
    serials.dedup();
    serials
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_replaced_on_disk_is_used_without_a_restart_or_a_failed_call() {
    let mesh = Mesh::start();
    let envoy = Envoy::start(&mesh).await;
    let load = Load::start(&Edges::new([envoy.rest()]), 2).await;
    load.wait_for_successes("calls before the rotation", 50).await;
    let mut known = serials(&envoy).await;
    assert_eq!(known.len(), 1, "{known:?}");
    let directory = mesh.certificates().ca().parent().unwrap();
    for _ in 0..2 {
        let mut issue = process::drystone(&["certs", "issue", "ingress", "--certs-dir"]);
        let issued = process::run_to_end(issue.arg(directory));
        assert!(issued.status.success(), "{issued:?}");
        known = wait::until("Envoy uses the new certificate", async || {
            let now = serials(&envoy).await;
            (now.len() == 1 && now != known).then_some(now)
        })
        .await;
        load.wait_for_successes("calls after the rotation", 100).await;
    }
    load.stop().await.assert_no_failures();
}

#[tokio::test]
async fn the_access_log_names_request_client_and_user_and_no_secret() {
    let mesh = Mesh::start();
    let envoy = Envoy::start(&mesh).await;
    let (user, tokens) = User::signed_in(&mesh).await;
    // Envoy fetches the key set through itself, and verifies tokens with it.
    wait::until("Envoy has the keys", async || {
        let stats = envoy.admin.get("/stats?filter=jwks_fetch_success").send().await.text();
        stats.lines().any(|line| !line.ends_with(": 0")).then_some(())
    })
    .await;
    let request = envoy.rest().get("/v1/users/me?fields=secret").bearer(&tokens.access);
    request.header("x-request-id", "from-the-client").send().await;
    let request = envoy.rest().get("/v1/users/me").bearer(&tokens.access);
    let answer = request.header("x-request-id", "known-7").send().await.expect(200);
    assert_eq!(answer.header("x-request-id"), "known-7");
    let line = wait::until("the request is logged", async || {
        let lines = logs::events(&envoy.process.output());
        lines.into_iter().find(|line| line["request_id"] == "known-7")
    })
    .await;
    let expected = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (expected("path"), expected("rpc")),
        ("/v1/users/me".to_owned(), "/drystone.user.v1.UserService/GetMe".to_owned())
    );
    assert_eq!((expected("client"), expected("user")), ("127.0.0.1".to_owned(), user.id), "{line:#}");
    assert_eq!(line["status"], Value::from(200), "{line:#}");
    let log = envoy.process.output();
    assert!(!log.contains(&tokens.access) && !log.contains("fields=secret"), "{log}");
}
