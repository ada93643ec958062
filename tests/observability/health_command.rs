//! `drystone health`, as the health check of a container runs it.

use std::{net::TcpListener, time::Instant};

use drystone_backends::Redis;
use drystone_tests::{
    Mesh, free_addresses,
    process::{Ended, drystone, run_to_end},
    wait::until,
};

fn health(arguments: &[&str]) -> Ended {
    let mut command = drystone(&["health"]);
    run_to_end(command.args(arguments))
}

fn health_at(mesh: &Mesh) -> Ended {
    health(&["--url", &format!("http://{}", mesh.admin_address())])
}

/// The one sentence that it ends with.
fn complaint(ended: &Ended, code: i32) -> &str {
    assert_eq!(ended.status.code(), Some(code), "{ended:?}");
    assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 1), "{ended:?}");
    ended.stderr.strip_prefix("drystone: ").unwrap_or_else(|| panic!("{ended:?}")).trim_end()
}

#[tokio::test]
async fn a_mesh_that_works_is_ready() {
    let mesh = Mesh::shared();
    // It is ready before each part of it has heard of each other part.
    let ended =
        until("everything works", async || Some(health_at(mesh)).filter(|ended| ended.stdout == "ready\n")).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "");
}

#[test]
fn the_configuration_says_where_to_ask() {
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
    assert!(complaint(&wrong, 2).contains("admin.listen"), "{wrong:?}");
}

#[tokio::test]
async fn a_mesh_without_one_of_its_services_is_ready_and_says_so() {
    let mesh = Mesh::setup().without("property").start();
    let ended = until("it has noticed", async || {
        let ended = health_at(&mesh);
        ended.stdout.contains("property").then_some(ended)
    });
    let ended = ended.await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("ready, but degraded\n"), "{}", ended.stdout);
    assert!(ended.stdout.lines().any(|line| line.contains("-> property") && line.contains("down")), "{}", ended.stdout);
    assert!(!ended.stdout.contains(" up"), "only what is away is told: {}", ended.stdout);
}

#[tokio::test]
async fn a_mesh_that_is_not_ready_says_what_is_away() {
    let mut server = Redis::start();
    let mesh = Mesh::setup().set("session.store", "redis").set("redis.url", server.url()).start();
    server.stop();
    let ended = until("it has noticed", async || Some(health_at(&mesh)).filter(|ended| !ended.status.success())).await;
    let told = complaint(&ended, 1);
    assert!(told.starts_with(&format!("http://{} is not ready: ", mesh.admin_address())), "{told}");
    assert!(
        told.contains("session redis is down (") && told.contains("it becomes ready by itself once these are up"),
        "{told}"
    );
    server.start_again();
    until("it is ready again", async || health_at(&mesh).status.success().then_some(())).await;
}

#[test]
fn where_nobody_is_it_says_what_to_do() {
    let [nobody] = free_addresses::<1>();
    let told = health(&["--url", &format!("http://{nobody}")]);
    let told = complaint(&told, 1);
    assert!(told.starts_with(&format!("nobody answers at http://{nobody}: ")), "{told}");
    assert!(told.contains("start the process") && told.contains("admin.listen"), "{told}");
}

#[test]
fn whoever_answers_something_else_is_no_admin_port() {
    let edge = Mesh::shared().rest().address();
    let told = health(&["--url", &format!("http://{edge}")]);
    let told = complaint(&told, 1);
    assert!(
        told.contains(&format!("the server at http://{edge} is not an admin port of Drystone")) && told.contains("404"),
        "{told}"
    );
}

#[test]
fn whoever_says_nothing_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    let told = health(&["--url", &format!("http://{}", silent.local_addr().unwrap())]);
    assert!(complaint(&told, 1).contains("does not answer within 3s"), "{told:?}");
    // A container's check gives up after five seconds and would not say why.
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

#[test]
fn a_url_that_cannot_be_asked_is_wrong_usage() {
    for url in ["127.0.0.1:8081", "https://127.0.0.1:8081", "http://127.0.0.1:8081/ready"] {
        let ended = health(&["--url", url]);
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains("write http://HOST:PORT"), "{}", ended.stderr);
    }
}
