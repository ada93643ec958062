//! Guesses at passwords: they lock no owner out on a known device, and delay none.

use std::time::Instant;

use drystone_tests::{Mesh, RestResponse, User, unique_email, wait};
use serde_json::json;
use tokio::task::JoinSet;

/// A mesh with the default limits, which takes the client's address from `x-forwarded-for`.
fn limited() -> Mesh {
    let setup = Mesh::setup().with_default_rate_limits().set("edge.trusted_proxies", r#"["127.0.0.1"]"#);
    setup.set("limits.requests_per_minute", "0").set("limits.registration_per_minute", "0").start()
}

async fn sign_in(mesh: &Mesh, address: &str, email: &str, password: &str, device: &str) -> RestResponse {
    let body = json!({"email": email, "password": password, "deviceToken": device});
    mesh.rest().post("/v1/auth/login", body).header("x-forwarded-for", address).send().await
}

#[tokio::test]
async fn guesses_do_not_lock_the_owner_out_on_a_known_device() {
    let mesh = limited();
    let user = User::register(&mesh).await;
    let first = sign_in(&mesh, "192.0.2.1", &user.email, &user.password, "").await.expect(200).json();
    let device = first["deviceToken"].as_str().unwrap().to_owned();
    let (mut refused, mut signed_in) = (0, 0);
    for number in 0..60 {
        let stranger = format!("198.51.100.{number}");
        let guess = sign_in(&mesh, &stranger, &user.email, "not the password", "").await;
        refused += u32::from(guess.status == 429);
        if number % 10 == 9 {
            signed_in += 1;
            sign_in(&mesh, "192.0.2.1", &user.email, &user.password, &device).await.expect(200);
        }
    }
    assert!(refused >= 40, "{refused} guesses were refused");
    assert_eq!(signed_in, 6);
    // A token for another account is of no use.
    let other = User::register(&mesh).await;
    let guess = sign_in(&mesh, "198.51.100.200", &user.email, "not the password", &device).await;
    assert_eq!(guess.status, 401, "the known device may guess, within its own limit");
    for number in 0..20 {
        let stranger = format!("203.0.113.{number}");
        sign_in(&mesh, &stranger, &other.email, "not the password", &device).await;
    }
    assert_eq!(sign_in(&mesh, "203.0.113.99", &other.email, "not the password", &device).await.status, 429);
}

/// 400 networks, each with sign-ins within its limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_device_signs_in_while_400_networks_flood() {
    const NETWORKS: usize = 400;
    let mesh = limited();
    let user = User::register(&mesh).await;
    let first = sign_in(&mesh, "192.0.2.1", &user.email, &user.password, "").await.expect(200).json();
    let device = first["deviceToken"].as_str().unwrap().to_owned();
    let rest = mesh.rest();
    let mut flood = JoinSet::new();
    for network in 0..NETWORKS {
        flood.spawn(async move {
            for _ in 0..8 {
                let body = json!({"email": unique_email(), "password": "not the password"});
                let address = format!("2001:db8:{network:x}::1");
                let call = rest.post("/v1/auth/login", body).header("x-forwarded-for", &address);
                let _ = call.try_send().await;
            }
        });
    }
    wait::until("the queue is full", async || {
        let full = [("reason", "queue_full")];
        let dropped = mesh.metrics().await.sum("drystone_password_hashes_dropped_total", &full);
        (dropped > 0.0).then_some(())
    })
    .await;
    let (mut times, mut new_devices) = (Vec::new(), Vec::new());
    for number in 0..8 {
        let start = Instant::now();
        sign_in(&mesh, "192.0.2.1", &user.email, &user.password, &device).await.expect(200);
        times.push(start.elapsed());
        let start = Instant::now();
        let new = sign_in(&mesh, &format!("192.0.2.{}", 10 + number), &user.email, &user.password, "").await;
        new_devices.push((new.status, start.elapsed()));
    }
    println!("known device: {times:?}");
    println!("new devices: {new_devices:?}");
    flood.abort_all();
}
