//! `drystone health`, the health check of containers.

use std::{net::TcpListener, time::Instant};

use drystone_backends::Redis;
use drystone_tests::{
    Mesh, free_addresses,
    process::{ProcessOutput, drystone, run_to_end},
    wait::until,
};

fn health(arguments: &[&str]) -> ProcessOutput {
    let mut command = drystone(&["health"]);
    run_to_end(command.args(arguments))
}

fn health_at(mesh: &Mesh) -> ProcessOutput {
    health(&["--url", &format!("http://{}", mesh.admin_address())])
}

/// The one-line error of a failed command.
fn error_line(ended: &ProcessOutput, code: i32) -> &str {
    assert_eq!(ended.status.code(), Some(code), "{ended:?}");
    assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 1), "{ended:?}");
    ended.stderr.strip_prefix("drystone: ").unwrap_or_else(|| panic!("{ended:?}")).trim_end()
}

#[tokio::test]
async fn a_healthy_mesh_is_ready() {
    let mesh = Mesh::shared();
    // The mesh is ready before all of its services are connected to each other.
    let ended =
        until("the mesh is healthy", async || Some(health_at(mesh)).filter(|ended| ended.stdout == "ready\n")).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "");
}

#[test]
fn the_health_address_comes_from_the_configuration() {
    let mesh = Mesh::shared();
    let by_environment = |listen: String| run_to_end(drystone(&["health"]).env("DRYSTONE_ADMIN__LISTEN", listen));
    for listen in [mesh.admin_address().to_string(), format!("0.0.0.0:{}", mesh.admin_address().port())] {
        let ended = by_environment(listen);
        assert!(ended.status.success(), "{ended:?}");
    }
    let configuration = mesh.home().write("health.toml", &format!("[admin]\nlisten = '{}'\n", mesh.admin_address()));
    let by_file = health(&["--config", configuration.to_str().unwrap()]);
    assert!(by_file.status.success(), "{by_file:?}");
    let wrong = by_environment("nowhere".to_owned());
    assert!(error_line(&wrong, 2).contains("admin.listen"), "{wrong:?}");
}

#[tokio::test]
async fn a_degraded_mesh_is_ready_and_lists_what_is_down() {
    let mesh = Mesh::setup().without("property").start();
    let ended = until("the outage is reported", async || {
        let ended = health_at(&mesh);
        ended.stdout.contains("property").then_some(ended)
    });
    let ended = ended.await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("ready, but degraded\n"), "{}", ended.stdout);
    assert!(ended.stdout.lines().any(|line| line.contains("-> property") && line.contains("down")), "{}", ended.stdout);
    assert!(!ended.stdout.contains(" up"), "only failed components are listed: {}", ended.stdout);
}

#[tokio::test]
async fn a_mesh_that_is_not_ready_lists_what_is_down() {
    let mut server = Redis::start();
    let mesh = Mesh::setup().set("session.store", "redis").set("redis.url", server.url()).start();
    server.stop();
    let ended =
        until("the outage is reported", async || Some(health_at(&mesh)).filter(|ended| !ended.status.success())).await;
    let error = error_line(&ended, 1);
    assert!(error.starts_with(&format!("http://{} is not ready: ", mesh.admin_address())), "{error}");
    assert!(
        error.contains("session redis is down (") && error.contains("it becomes ready by itself once these are up"),
        "{error}"
    );
    server.start_again();
    until("the mesh is ready", async || health_at(&mesh).status.success().then_some(())).await;
}

#[test]
fn a_refused_connection_is_reported_with_advice() {
    let [address] = free_addresses::<1>();
    let ended = health(&["--url", &format!("http://{address}")]);
    let error = error_line(&ended, 1);
    assert!(error.starts_with(&format!("no server answers at http://{address}: ")), "{error}");
    assert!(error.contains("start the process") && error.contains("admin.listen"), "{error}");
}

#[test]
fn an_address_that_is_not_an_admin_port_is_reported() {
    let edge = Mesh::shared().rest().address();
    let ended = health(&["--url", &format!("http://{edge}")]);
    let error = error_line(&ended, 1);
    assert!(
        error.contains(&format!("the server at http://{edge} is not an admin port of Drystone"))
            && error.contains("404"),
        "{error}"
    );
}

#[test]
fn a_server_that_does_not_respond_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    let ended = health(&["--url", &format!("http://{}", silent.local_addr().unwrap())]);
    assert!(error_line(&ended, 1).contains("does not answer within 3s"), "{ended:?}");
    // The container's health check has a timeout of five seconds, after which the reason would be lost.
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

#[test]
fn an_invalid_url_is_a_usage_error() {
    for url in ["127.0.0.1:8081", "https://127.0.0.1:8081", "http://127.0.0.1:8081/ready"] {
        let ended = health(&["--url", url]);
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains("write http://HOST:PORT"), "{}", ended.stderr);
    }
}
