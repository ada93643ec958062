//! What is under the mesh goes away while it is used: nothing that was acknowledged is lost, whoever is refused is told
//! when to come back, and everything recovers by itself.
//!
//! Two instances of each, on PostgreSQL and Redis, under a steady load of reads and writes.

use std::{
    fs,
    io::{self, Write},
    time::{Duration, Instant},
};

use drystone::Reason;
use drystone_tests::{
    Exclusive, Front, Mesh, Production, User,
    load::{Done, Load, Outcome},
    services, services_on_postgres, wait,
};
use serde_json::json;

/// How many people make the load.
const PEOPLE: usize = 6;

/// How long the slowest refusal may take: far less than a client's deadline.
const PATIENCE: Duration = Duration::from_secs(8);

/// Lets something go wrong under load, and looks at what came of it once all is well again.
async fn under_load(fault: impl AsyncFnOnce(&mut Production, &Load)) -> Outcome {
    let (mut outcome, _mesh) = load_during(fault).await;
    outcome.assert_kept().await;
    outcome
}

/// The same, but for what was acknowledged.
async fn load_during(fault: impl AsyncFnOnce(&mut Production, &Load)) -> (Outcome, Exclusive) {
    let mut mesh = Production::exclusively().await;
    let front = mesh.cluster.front();
    let load = Load::start(&front, PEOPLE).await;
    fault(&mut mesh, &load).await;
    let over = Instant::now();
    load.until_served("calls are served again", 100).await;
    let served = over.elapsed();
    mesh.cluster.until_well().await;
    println!("served again after {served:?}, well after {:?}", over.elapsed());
    let outcome = load.stop().await;
    println!("{}", outcome.summary());
    outcome.assert_refused_in_order();
    let slow: Vec<&Done> = outcome.refusals().filter(|done| done.ended - done.begun > PATIENCE).collect();
    assert!(slow.is_empty(), "{slow:#?}");
    (outcome, mesh)
}

/// Waits until the health of every instance of these services names what is away.
async fn is_named(mesh: &Production, services: &[&'static str], component: &str) {
    for service in services {
        for number in 0..mesh.cluster.instances() {
            wait::until(&format!("{service} {number} says that {component} is away"), async || {
                let health = mesh.cluster.health(service, number).await;
                (health["components"][format!("{service} {component}")]["state"] == "down").then_some(())
            })
            .await;
        }
    }
}

/// Nobody had to sign in again.
#[track_caller]
fn no_session_was_lost(outcome: &Outcome) {
    assert_eq!(outcome.calls.iter().filter(|done| done.what == "sign in again").count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_restarted() {
    let outcome = under_load(async |mesh, load| {
        for _ in 0..3 {
            mesh.postgres.stop();
            mesh.postgres.start();
            load.until_served("calls are served after the restart", 30).await;
        }
    });
    no_session_was_lost(&outcome.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_away_for_ten_seconds() {
    let outcome = under_load(async |mesh, load| {
        let begun = Instant::now();
        mesh.postgres.stop();
        load.until_refused("calls are refused without PostgreSQL", 20).await;
        is_named(mesh, &services_on_postgres(), "database").await;
        tokio::time::sleep(Duration::from_secs(10).saturating_sub(begun.elapsed())).await;
        mesh.postgres.start();
    })
    .await;
    no_session_was_lost(&outcome);
    // What needs no database was served all the time.
    let lists = outcome.refusals().filter(|done| done.what == "list sessions").count();
    assert_eq!(lists, 0, "sessions are in Redis");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_away_for_a_while() {
    let outcome = under_load(async |mesh, load| {
        for kills in [false, true] {
            if kills {
                mesh.redis.kill();
            } else {
                mesh.redis.stop();
            }
            load.until_refused("calls are refused without Redis", 20).await;
            is_named(mesh, &["session"], "redis").await;
            mesh.redis.start_again();
            load.until_served("calls are served with Redis", 50).await;
        }
    })
    .await;
    no_session_was_lost(&outcome);
    // What needs no session is served all the time.
    let tokens_alone = ["create", "update", "delete", "list properties", "who am I"];
    let refused = outcome.refusals().filter(|done| tokens_alone.contains(&done.what)).count();
    assert_eq!(refused, 0, "access tokens work without Redis");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_comes_back_empty() {
    let mut lost_at = Instant::now();
    let (mut outcome, _mesh) = load_during(async |mesh, load| {
        let front = mesh.cluster.front();
        let user = User::register_at(front.next()).await;
        let (ended, lost) = (user.sign_in_at(front.next()).await, user.sign_in_at(front.next()).await);
        front.next().post("/v1/auth/logout", json!({})).bearer(&ended.access).send().await.expect(200);

        lost_at = Instant::now();
        mesh.redis.stop();
        load.until_refused("calls are refused without Redis", 20).await;
        mesh.redis.start_empty();
        load.until_served("calls are served with the new Redis", 50).await;

        // Sessions went with it: people sign in anew. What had been revoked stays so, on every instance.
        for _ in 0..4 {
            let body = json!({"refreshToken": lost.refresh});
            front.next().post("/v1/auth/refresh", body).send().await.refused(Reason::SessionEnded);
            for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
                front.next().get(path).bearer(&ended.access).send().await.refused(Reason::TokenRevoked);
            }
        }
        let anew = user.sign_in_at(front.next()).await;
        let anew = anew.refresh(front.next()).await;
        front.next().post("/v1/auth/logout", json!({})).bearer(&anew.access).send().await.expect(200);
        for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
            for _ in 0..4 {
                front.next().get(path).bearer(&anew.access).send().await.refused(Reason::TokenRevoked);
            }
        }
    })
    .await;
    outcome.forget_ends_at(lost_at);
    outcome.assert_kept().await;
    let tokens_alone = ["create", "update", "delete", "list properties", "who am I"];
    let refused = outcome.refusals().filter(|done| tokens_alone.contains(&done.what)).count();
    assert_eq!(refused, 0, "access tokens work without Redis");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_killed_in_the_middle_of_writes() {
    let outcome = under_load(async |mesh, load| {
        for (part, number) in [("property", 0), ("property", 1), ("user", 1), ("session", 0), ("auth", 1)] {
            mesh.cluster.kill_one(part, number);
            load.until_served(&format!("{part} goes on without {number}"), 30).await;
            mesh.cluster.start_one(part, number);
            mesh.cluster.until_well().await;
        }
    });
    no_session_was_lost(&outcome.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_has_a_full_disk() {
    let mesh = Mesh::setup().disk(24).start();
    let load = Load::start(&Front::new([mesh.rest()]), PEOPLE).await;
    let (_, tokens) = User::signed_in(&mesh).await;
    let filler = mesh.disk().join("filler");
    for round in 0..2 {
        fill(&filler);
        load.until_refused("writes are refused", 30).await;
        for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
            mesh.rest().get(path).bearer(&tokens.access).send().await.expect(200);
        }
        fs::remove_file(&filler).unwrap();
        load.until_served("there is room again", 100).await;
        let name = format!("with room, {round}");
        let body = json!({"displayName": name});
        mesh.rest().post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200);
    }
    let health = mesh.admin("/health/detailed").await.json();
    assert_eq!(health["status"], "ok", "{health}");
    for service in services() {
        assert_eq!(health["components"][format!("{service} database")]["state"], "up", "{health}");
    }

    let mut outcome = load.stop().await;
    println!("{}", outcome.summary());
    outcome.assert_refused_in_order();
    assert!(outcome.refusals().all(|done| done.reason == "DATABASE_FULL"), "{}", outcome.summary());
    let reads = ["list properties", "list sessions", "who am I"];
    assert!(!outcome.refusals().any(|done| reads.contains(&done.what)), "reads work: {}", outcome.summary());
    no_session_was_lost(&outcome);
    outcome.assert_kept().await;
}

/// Leaves no room, to the last byte.
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
