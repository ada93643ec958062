//! How often somebody may try to sign in or to register, with the limits of a mesh that nobody has configured; and how often
//! a client may ask the edge for anything.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drystone::{
    Reason,
    auth::v1::{SignInRequest, auth_service_client::AuthServiceClient},
};
use drystone_backends::Redis;
use drystone_tests::{
    Answer, Mesh, Setup, User,
    grpc::{assert_refused, reason},
    unique_email, wait,
};
use serde_json::{Value, json};

async fn sign_in(mesh: &Mesh, email: &str, password: &str) -> Answer {
    let body = json!({"email": email, "password": password});
    // What a client says of where it comes from counts for nothing.
    let call = mesh.rest().post("/v1/auth/login", body).header("x-forwarded-for", &format!("192.0.2.{}", rand_byte()));
    call.header("x-drystone-client-address", "192.0.2.1").send().await
}

async fn register(mesh: &Mesh) -> Answer {
    let body = json!({"email": unique_email(), "password": "correct horse", "displayName": "Ada"});
    mesh.rest().post("/v1/auth/register", body).send().await
}

fn rand_byte() -> u8 {
    uuid::Uuid::now_v7().as_bytes()[15]
}

/// A refusal that says when to come back: at least `least` seconds from now, and at most `most`.
#[track_caller]
fn says_when(answer: Answer, least: u64, most: u64) {
    let answer = answer.refused(Reason::RateLimited);
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((least..=most).contains(&seconds), "{seconds}");
    assert!(answer.detail("google.rpc.RetryInfo").is_some(), "{answer:?}");
}

#[tokio::test]
async fn ten_sign_ins_a_minute_come_from_one_address_and_five_registrations() {
    ten_sign_ins_and_five_registrations(&Mesh::setup().limited().start()).await;
}

#[tokio::test]
async fn ten_sign_ins_a_minute_come_from_one_address_and_five_registrations_over_redis() {
    let server = Redis::shared();
    let prefix = server.prefix();
    let setup = || {
        let setup = Mesh::setup().limited().set("limits.store", "redis").set("redis.url", server.url());
        // What a test machine needs under load is no measure for a time limit.
        setup.set("redis.prefix", &prefix).set("redis.timeout", "1s")
    };
    let mesh = setup().start();
    ten_sign_ins_and_five_registrations(&mesh).await;
    // They are counted for all meshes with this Redis.
    let another = setup().start();
    says_when(sign_in(&another, &unique_email(), "whatever it is").await, 1, 6);
    says_when(register(&another).await, 1, 12);
}

async fn ten_sign_ins_and_five_registrations(mesh: &Mesh) {
    let user = User::register(mesh).await;
    for _ in 0..4 {
        register(mesh).await.expect(200);
    }
    says_when(register(mesh).await, 1, 12);

    let before = mesh.metrics().await.sum("drystone_hashing_seconds_count", &[]);
    for attempt in 0..10 {
        if attempt % 2 == 0 {
            sign_in(mesh, &user.email, &user.password).await.expect(200);
        } else {
            sign_in(mesh, &unique_email(), "whatever it is").await.refused(Reason::InvalidCredentials);
        }
    }
    says_when(sign_in(mesh, &user.email, &user.password).await, 1, 6);
    says_when(sign_in(mesh, &unique_email(), "whatever it is").await, 1, 6);

    let described = mesh.admin("/metrics").await.text().matches("# HELP drystone_rate_limited ").count();
    assert_eq!(described, 1, "auth and the edge count in one place");
    let metrics = mesh.metrics().await;
    let hashed = metrics.sum("drystone_hashing_seconds_count", &[]) - before;
    assert!((hashed - 10.0).abs() < 0.1, "{hashed} were hashed, and those that were refused were not");
    assert!(metrics.sum("drystone_rate_limited_total", &[("limit", "sign_in_address")]) >= 2.0);
    assert!(metrics.sum("drystone_rate_limited_total", &[("limit", "registration_address")]) >= 1.0);
}

#[tokio::test]
async fn who_calls_without_a_front_door_is_limited_for_each_account_alone() {
    let mesh = Mesh::setup().limited().start();
    let user = User::register(&mesh).await;
    let client = AuthServiceClient::new(mesh.channel("auth", "operator"));
    let attempt = async |email: &str| {
        let request = SignInRequest { email: email.to_owned(), password: "not the password".to_owned() };
        client.clone().sign_in(request).await.map(drop)
    };
    for _ in 0..30 {
        assert_refused(attempt(&unique_email()).await, Reason::InvalidCredentials);
    }
    let mut refused = 0;
    for _ in 0..12 {
        refused += u32::from(reason(&attempt(&user.email).await.unwrap_err()) == Some(Reason::RateLimited));
    }
    assert!((1..=2).contains(&refused), "{refused} of twelve were refused");
}

#[tokio::test]
async fn an_attempt_that_the_limit_of_an_address_refuses_does_not_count_for_the_account() {
    let mesh = Mesh::setup().limited().set("edge.trusted_proxies", r#"["127.0.0.1"]"#).start();
    let user = User::register(&mesh).await;
    let attempt = async |client: &str, email: &str| {
        let body = json!({"email": email, "password": "not the password"});
        mesh.rest().post("/v1/auth/login", body).header("x-forwarded-for", client).send().await
    };
    // One address uses up its limit on other accounts, and then tries this one.
    for _ in 0..10 {
        attempt("192.0.2.7", &unique_email()).await.refused(Reason::InvalidCredentials);
    }
    let mut refused = 0;
    for _ in 0..20 {
        refused += u32::from(attempt("192.0.2.7", &user.email).await.status == 429);
    }
    assert!(refused >= 15, "{refused} of twenty were refused");
    // From elsewhere, the account is tried as often as if those had not been.
    let mut passed = 20 - refused;
    while passed < 30 && attempt(&format!("198.51.100.{passed}"), &user.email).await.status == 401 {
        passed += 1;
    }
    assert!((10..30).contains(&passed), "{passed} attempts passed");
}

/// What lets one edge pass in a minute.
const A_MINUTE: u32 = 60;

/// An edge alone before the user service of this mesh. It lets so many requests pass, and believes this machine about who
/// its clients are.
fn edge(mesh: &Mesh) -> Setup {
    let setup = Mesh::setup().limited().serve(&["edge"], mesh.certificates());
    let setup = setup.set("peers.user", &mesh.grpc_address("user").to_string());
    setup.set("limits.requests_per_minute", &A_MINUTE.to_string()).set("edge.trusted_proxies", r#"["127.0.0.1"]"#)
}

/// The same, which counts in this Redis.
fn edge_on(server: &Redis, prefix: &str, mesh: &Mesh) -> Setup {
    let setup = edge(mesh).set("limits.store", "redis").set("redis.url", server.url());
    // What a test machine needs under load is no measure for a time limit.
    setup.set("redis.prefix", prefix).set("redis.timeout", "1s")
}

/// Asks as this client. Whether the request has passed: then the user service refuses it, for want of a token.
async fn passes(edge: &Mesh, client: &str) -> bool {
    let answer = edge.rest().get("/v1/users/me").header("x-forwarded-for", client).send().await;
    if answer.status == 401 {
        answer.refused(Reason::TokenMissing);
        return true;
    }
    // One passes in each second, or in two while Redis is away.
    says_when(answer, 1, 2);
    false
}

/// How many requests of this client pass until the first is refused.
async fn until_refused(edge: &Mesh, client: &str) -> u32 {
    let mut passed = 0;
    while passes(edge, client).await {
        passed += 1;
    }
    passed
}

/// No more may pass than the burst and what comes due, and no less than the burst.
#[track_caller]
fn is_within(passed: u32, elapsed: Duration, burst: u32, interval: Duration) {
    let bound = f64::from(burst) + elapsed.as_secs_f64() / interval.as_secs_f64();
    assert!(passed >= burst && f64::from(passed) <= bound, "{passed} passed in {elapsed:?}, {bound} are allowed");
}

async fn component(edge: &Mesh, name: &str) -> Option<String> {
    let report: Value = edge.admin("/health/detailed").await.json();
    report["components"][name]["state"].as_str().map(str::to_owned)
}

async fn is(edge: &Mesh, state: &str) {
    wait::until(state, async || (component(edge, "edge limits").await? == state).then_some(())).await;
}

#[tokio::test]
async fn a_client_asks_so_often_in_a_minute_and_then_waits_and_others_do_not_notice() {
    let mesh = Mesh::start();
    let edge = edge(&mesh).start();
    let start = Instant::now();
    // What a client claims of itself gives it no other count.
    let (first, claimed) = (until_refused(&edge, "192.0.2.7").await, until_refused(&edge, "6.6.6.6, 192.0.2.7").await);
    let passed = first + claimed;
    is_within(passed, start.elapsed(), A_MINUTE, Duration::from_secs(1));
    let calls = mesh.metrics().await.sum("drystone_calls_total", &[("service", "user"), ("method", "GetMe")]);
    assert!((calls - f64::from(passed)).abs() < 0.1, "{calls} calls reached the user service, {passed} were to");

    assert!(passes(&edge, "192.0.2.8").await);
    edge.rest().get("/health").header("x-forwarded-for", "192.0.2.7").send().await.expect(200);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(passes(&edge, "192.0.2.7").await);

    assert!(edge.metrics().await.sum("drystone_rate_limited_total", &[("limit", "request_address")]) >= 2.0);
    assert_eq!(component(&edge, "edge limits").await, None, "who counts in the process needs no Redis");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_edges_on_one_redis_share_one_count() {
    const ONE_CUSTOMER: [&str; 2] = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"];

    let (mesh, server) = (Mesh::start(), Redis::shared());
    let prefix = server.prefix();
    let edges = [edge_on(server, &prefix, &mesh).begin(), edge_on(server, &prefix, &mesh).begin()];
    let edges = edges.map(|edge| Arc::new(edge.ready()));
    for edge in &edges {
        is(edge, "up").await;
    }
    let start = Instant::now();
    let clients = (0..8).map(|client| {
        let (edge, address) = (edges[client % 2].clone(), ONE_CUSTOMER[client / 2 % 2]);
        tokio::spawn(async move {
            let mut passed = 0;
            while start.elapsed() < Duration::from_secs(3) {
                passed += u32::from(passes(&edge, address).await);
            }
            passed
        })
    });
    let mut passed = 0;
    for client in clients.collect::<Vec<_>>() {
        passed += client.await.unwrap();
    }
    is_within(passed, start.elapsed(), A_MINUTE, Duration::from_secs(1));
    for edge in &edges {
        assert!(passes(edge, "2001:db8:1:3::1").await);
        let fallen_back = edge.metrics().await.sum("drystone_rate_limit_fallbacks_total", &[]);
        assert!(fallen_back < 0.1, "{fallen_back} were counted without Redis");
    }
}

#[tokio::test]
async fn while_redis_is_away_an_edge_keeps_a_stricter_limit_of_its_own() {
    let (mesh, mut server) = (Mesh::start(), Redis::start());
    let edge = edge_on(&server, &server.prefix(), &mesh).start();
    is(&edge, "up").await;
    server.stop();
    is(&edge, "down").await;
    edge.admin("/ready").await.expect(200);
    let start = Instant::now();
    let passed = until_refused(&edge, "192.0.2.7").await;
    is_within(passed, start.elapsed(), A_MINUTE / 2, Duration::from_secs(2));
    let fallen_back = edge.metrics().await.sum("drystone_rate_limit_fallbacks_total", &[("limit", "request_address")]);
    assert!(fallen_back >= f64::from(passed), "{fallen_back} were counted without Redis, {passed} passed");

    server.start_again();
    is(&edge, "up").await;
    let start = Instant::now();
    let passed = until_refused(&edge, "192.0.2.8").await;
    is_within(passed, start.elapsed(), A_MINUTE, Duration::from_secs(1));
}
