//! Outages of stores and services under load: no acknowledged write is lost, failed calls are retryable, and the mesh
//! recovers without intervention.
//!
//! Two instances of each service on PostgreSQL and Redis, under a steady load of reads and writes.

use std::{
    fs,
    io::{self, Write},
    time::{Duration, Instant},
};

use drystone::Reason;
use drystone_tests::{
    Edges, Mesh, Production, ProductionGuard, User,
    load::{CallRecord, Load, LoadReport},
    services, services_on_postgres, wait,
};
use serde_json::json;

/// Virtual users of the load.
const VIRTUAL_USERS: usize = 6;

/// How long a failed call may take: far less than the deadline of a client.
const MAX_FAILURE_TIME: Duration = Duration::from_secs(8);

/// Injects a fault under load, waits for recovery, and checks that no acknowledged write is lost.
async fn under_load(fault: impl AsyncFnOnce(&mut Production, &Load)) -> LoadReport {
    let (mut report, _mesh) = load_during(fault).await;
    report.assert_no_lost_writes().await;
    report
}

/// Injects a fault under load and waits for recovery.
async fn load_during(fault: impl AsyncFnOnce(&mut Production, &Load)) -> (LoadReport, ProductionGuard) {
    let mut mesh = Production::lock().await;
    let edges = mesh.cluster.edges();
    let load = Load::start(&edges, VIRTUAL_USERS).await;
    fault(&mut mesh, &load).await;
    let fault_end = Instant::now();
    load.wait_for_successes("calls succeed again", 100).await;
    let recovered = fault_end.elapsed();
    mesh.cluster.wait_until_healthy().await;
    println!("calls succeed after {recovered:?}, healthy after {:?}", fault_end.elapsed());
    let report = load.stop().await;
    println!("{}", report.summary());
    report.assert_failures_are_retryable();
    let slow: Vec<&CallRecord> = report.failures().filter(|call| call.end - call.start > MAX_FAILURE_TIME).collect();
    assert!(slow.is_empty(), "{slow:#?}");
    (report, mesh)
}

/// Waits until every instance of these services reports the component as down.
async fn wait_until_reported_down(mesh: &Production, services: &[&'static str], component: &str) {
    for service in services {
        for number in 0..mesh.cluster.instances() {
            wait::until(&format!("{service} {number} reports {component} as down"), async || {
                let health = mesh.cluster.health(service, number).await;
                (health["components"][format!("{service} {component}")]["state"] == "down").then_some(())
            })
            .await;
        }
    }
}

/// Asserts that no virtual user had to sign in again.
#[track_caller]
fn assert_no_session_lost(report: &LoadReport) {
    assert_eq!(report.calls.iter().filter(|call| call.operation == "sign in again").count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_restarted() {
    let report = under_load(async |mesh, load| {
        for _ in 0..3 {
            mesh.postgres.stop();
            mesh.postgres.start();
            load.wait_for_successes("calls succeed after the restart", 30).await;
        }
    });
    assert_no_session_lost(&report.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_unavailable_for_ten_seconds() {
    let report = under_load(async |mesh, load| {
        let start = Instant::now();
        mesh.postgres.stop();
        load.wait_for_failures("calls fail without PostgreSQL", 20).await;
        wait_until_reported_down(mesh, &services_on_postgres(), "database").await;
        tokio::time::sleep(Duration::from_secs(10).saturating_sub(start.elapsed())).await;
        mesh.postgres.start();
    })
    .await;
    assert_no_session_lost(&report);
    // Calls that need no database did not fail.
    let lists = report.failures().filter(|call| call.operation == "list sessions").count();
    assert_eq!(lists, 0, "sessions are in Redis");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_unavailable() {
    let report = under_load(async |mesh, load| {
        for kills in [false, true] {
            if kills {
                mesh.redis.kill();
            } else {
                mesh.redis.stop();
            }
            load.wait_for_failures("calls fail without Redis", 20).await;
            wait_until_reported_down(mesh, &["session"], "redis").await;
            mesh.redis.start_again();
            load.wait_for_successes("calls succeed with Redis", 50).await;
        }
    })
    .await;
    assert_no_session_lost(&report);
    // Calls that need no session store did not fail.
    let token_only = ["create", "update", "delete", "list properties", "get user"];
    let failed = report.failures().filter(|call| token_only.contains(&call.operation)).count();
    assert_eq!(failed, 0, "access tokens are accepted without Redis");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_restarts_without_its_data() {
    let mut outage = Instant::now()..Instant::now();
    let (mut report, _mesh) = load_during(async |mesh, load| {
        let edges = mesh.cluster.edges();
        let user = User::register_at(edges.next()).await;
        let (ended, lost) = (user.sign_in_at(edges.next()).await, user.sign_in_at(edges.next()).await);
        edges.next().post("/v1/auth/logout", json!({})).bearer(&ended.access).send().await.expect(200);

        outage.start = Instant::now();
        mesh.redis.stop();
        outage.end = Instant::now();
        load.wait_for_failures("calls fail without Redis", 20).await;
        mesh.redis.start_empty();
        load.wait_for_successes("calls succeed with the empty Redis", 50).await;

        // Sessions are lost, and users sign in again. Earlier revocations stay in force on every instance.
        for _ in 0..4 {
            let body = json!({"refreshToken": lost.refresh});
            edges.next().post("/v1/auth/refresh", body).send().await.refused(Reason::SessionEnded);
            for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
                edges.next().get(path).bearer(&ended.access).send().await.refused(Reason::TokenRevoked);
            }
        }
        let renewed = user.sign_in_at(edges.next()).await;
        let renewed = renewed.refresh(edges.next()).await;
        edges.next().post("/v1/auth/logout", json!({})).bearer(&renewed.access).send().await.expect(200);
        for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
            for _ in 0..4 {
                edges.next().get(path).bearer(&renewed.access).send().await.refused(Reason::TokenRevoked);
            }
        }
    })
    .await;
    report.ignore_revocations_in_flight_during(&outage);
    report.assert_no_lost_writes().await;
    let token_only = ["create", "update", "delete", "list properties", "get user"];
    let failed = report.failures().filter(|call| token_only.contains(&call.operation)).count();
    assert_eq!(failed, 0, "access tokens are accepted without Redis");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_killed_during_writes() {
    let report = under_load(async |mesh, load| {
        for (part, number) in [("property", 0), ("property", 1), ("user", 1), ("session", 0), ("auth", 1)] {
            mesh.cluster.kill_one(part, number);
            load.wait_for_successes(&format!("calls succeed without {part} {number}"), 30).await;
            mesh.cluster.start_one(part, number);
            mesh.cluster.wait_until_healthy().await;
        }
    });
    assert_no_session_lost(&report.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_sqlite_is_full() {
    let mesh = Mesh::setup().tmpfs(24).start();
    let load = Load::start(&Edges::new([mesh.rest()]), VIRTUAL_USERS).await;
    let (_, tokens) = User::signed_in(&mesh).await;
    let filler = mesh.tmpfs_path().join("filler");
    for round in 0..2 {
        fill(&filler);
        load.wait_for_failures("writes fail", 30).await;
        for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
            mesh.rest().get(path).bearer(&tokens.access).send().await.expect(200);
        }
        fs::remove_file(&filler).unwrap();
        load.wait_for_successes("writes succeed again", 100).await;
        let name = format!("after cleanup {round}");
        let body = json!({"displayName": name});
        mesh.rest().post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200);
    }
    let health = mesh.admin("/health/detailed").await.json();
    assert_eq!(health["status"], "ok", "{health}");
    for service in services() {
        assert_eq!(health["components"][format!("{service} database")]["state"], "up", "{health}");
    }

    let mut report = load.stop().await;
    println!("{}", report.summary());
    report.assert_failures_are_retryable();
    assert!(report.failures().all(|call| call.reason == "DATABASE_FULL"), "{}", report.summary());
    let reads = ["list properties", "list sessions", "get user"];
    assert!(!report.failures().any(|call| reads.contains(&call.operation)), "a read failed: {}", report.summary());
    assert_no_session_lost(&report);
    report.assert_no_lost_writes().await;
}

/// Fills the disk to the last byte.
fn fill(path: &std::path::Path) {
    let mut file = fs::File::create(path).unwrap();
    for size in [64 * 1024, 1] {
        let block = vec![0; size];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
