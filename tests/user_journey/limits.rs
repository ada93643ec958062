//! Rate limits for sign-in and registration with the default configuration, and the request limit of the edge.

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
    Mesh, RestResponse, Setup, User,
    grpc::{assert_refused, reason},
    unique_email, wait,
};
use serde_json::{Value, json};

async fn sign_in(mesh: &Mesh, email: &str, password: &str) -> RestResponse {
    let body = json!({"email": email, "password": password});
    // Client-supplied addresses must not affect the count.
    let call = mesh.rest().post("/v1/auth/login", body).header("x-forwarded-for", &format!("192.0.2.{}", rand_byte()));
    call.header("x-drystone-client-address", "192.0.2.1").send().await
}

async fn register(mesh: &Mesh) -> RestResponse {
    let body = json!({"email": unique_email(), "password": "correct horse", "displayName": "Ada"});
    mesh.rest().post("/v1/auth/register", body).send().await
}

fn rand_byte() -> u8 {
    uuid::Uuid::now_v7().as_bytes()[15]
}

/// Asserts a RATE_LIMITED response with `Retry-After` between `min` and `max` seconds.
#[track_caller]
fn assert_rate_limited(answer: RestResponse, min: u64, max: u64) {
    let answer = answer.refused(Reason::RateLimited);
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((min..=max).contains(&seconds), "{seconds}");
    assert!(answer.detail("google.rpc.RetryInfo").is_some(), "{answer:?}");
}

#[tokio::test]
async fn one_address_may_make_ten_sign_ins_and_five_registrations_a_minute() {
    assert_default_limits(&Mesh::setup().with_default_rate_limits().start()).await;
}

#[tokio::test]
async fn one_address_may_make_ten_sign_ins_and_five_registrations_a_minute_counted_in_redis() {
    let server = Redis::shared();
    let prefix = server.prefix();
    let setup = || {
        let setup =
            Mesh::setup().with_default_rate_limits().set("limits.store", "redis").set("redis.url", server.url());
        // Test machines are slow under load.
        setup.set("redis.prefix", &prefix).set("redis.timeout", "1s")
    };
    let mesh = setup().start();
    assert_default_limits(&mesh).await;
    // The counts are shared by all meshes on this Redis.
    let another = setup().start();
    assert_rate_limited(sign_in(&another, &unique_email(), "any password").await, 1, 6);
    assert_rate_limited(register(&another).await, 1, 12);
}

async fn assert_default_limits(mesh: &Mesh) {
    let user = User::register(mesh).await;
    for _ in 0..4 {
        register(mesh).await.expect(200);
    }
    assert_rate_limited(register(mesh).await, 1, 12);

    let before = mesh.metrics().await.sum("drystone_password_hash_duration_seconds_count", &[]);
    for attempt in 0..10 {
        if attempt % 2 == 0 {
            sign_in(mesh, &user.email, &user.password).await.expect(200);
        } else {
            sign_in(mesh, &unique_email(), "any password").await.refused(Reason::InvalidCredentials);
        }
    }
    assert_rate_limited(sign_in(mesh, &user.email, &user.password).await, 1, 6);
    assert_rate_limited(sign_in(mesh, &unique_email(), "any password").await, 1, 6);

    let described = mesh.admin("/metrics").await.text().matches("# HELP drystone_rate_limited ").count();
    assert_eq!(described, 1, "auth and edge share one metric");
    let metrics = mesh.metrics().await;
    let hashed = metrics.sum("drystone_password_hash_duration_seconds_count", &[]) - before;
    assert!((hashed - 10.0).abs() < 0.1, "{hashed} passwords were hashed; refused attempts must not be hashed");
    assert!(metrics.sum("drystone_rate_limited_total", &[("limit", "sign_in_address")]) >= 2.0);
    assert!(metrics.sum("drystone_rate_limited_total", &[("limit", "registration_address")]) >= 1.0);
}

#[tokio::test]
async fn calls_that_bypass_the_entry_points_are_limited_only_per_account() {
    let mesh = Mesh::setup().with_default_rate_limits().start();
    let user = User::register(&mesh).await;
    let client = AuthServiceClient::new(mesh.channel("auth", "operator"));
    let attempt = async |email: &str| {
        let request = SignInRequest {
            email: email.to_owned(),
            password: "not the password".to_owned(),
            ..SignInRequest::default()
        };
        client.clone().sign_in(request).await.map(drop)
    };
    for _ in 0..30 {
        assert_refused(attempt(&unique_email()).await, Reason::InvalidCredentials);
    }
    let mut refused = 0;
    for _ in 0..12 {
        refused += u32::from(reason(&attempt(&user.email).await.unwrap_err()) == Some(Reason::RateLimited));
    }
    assert!((1..=2).contains(&refused), "{refused} of twelve attempts were refused");
}

#[tokio::test]
async fn an_attempt_refused_by_the_address_limit_does_not_count_for_the_account() {
    let mesh = Mesh::setup().with_default_rate_limits().set("edge.trusted_proxies", r#"["127.0.0.1"]"#).start();
    let user = User::register(&mesh).await;
    let attempt = async |client: &str, email: &str| {
        let body = json!({"email": email, "password": "not the password"});
        mesh.rest().post("/v1/auth/login", body).header("x-forwarded-for", client).send().await
    };
    // One address exhausts its limit on other accounts, then tries this account.
    for _ in 0..10 {
        attempt("192.0.2.7", &unique_email()).await.refused(Reason::InvalidCredentials);
    }
    let mut refused = 0;
    for _ in 0..20 {
        refused += u32::from(attempt("192.0.2.7", &user.email).await.status == 429);
    }
    assert!(refused >= 15, "{refused} of twenty attempts were refused");
    // Refused attempts have not counted against the account for other addresses.
    let mut passed = 20 - refused;
    while passed < 30 && attempt(&format!("198.51.100.{passed}"), &user.email).await.status == 401 {
        passed += 1;
    }
    assert!((10..30).contains(&passed), "{passed} attempts passed");
}

#[tokio::test]
async fn a_user_has_a_limit_of_writes_wherever_they_come_from() {
    let mesh = Mesh::setup()
        .with_default_rate_limits()
        .set("limits.write_per_minute", "3")
        .set("edge.trusted_proxies", r#"["127.0.0.1"]"#)
        .start();
    let (_, ada) = User::signed_in(&mesh).await;
    let (_, brian) = User::signed_in(&mesh).await;
    let create = async |token: &str, client: &str| {
        let call = mesh.rest().post("/v1/properties", json!({"displayName": "Barn"}));
        call.bearer(token).header("x-forwarded-for", client).send().await
    };
    for client in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        create(&ada.access, client).await.expect(200);
    }
    assert_rate_limited(create(&ada.access, "192.0.2.4").await, 1, 20);
    create(&brian.access, "192.0.2.1").await.expect(200);
    mesh.rest().get("/v1/properties").bearer(&ada.access).send().await.expect(200);
    assert!(mesh.metrics().await.sum("drystone_rate_limited_total", &[("limit", "write_user")]) >= 1.0);
}

/// The request limit of the edge for one minute.
const REQUESTS_PER_MINUTE: u32 = 60;

/// An edge in front of the user service of this mesh, with the request limit, that trusts 127.0.0.1 as a proxy.
fn edge(mesh: &Mesh) -> Setup {
    let setup = Mesh::setup().with_default_rate_limits().serve(&["edge"], mesh.certificates());
    let setup = setup.set("peers.user", &mesh.grpc_address("user").to_string());
    setup
        .set("limits.requests_per_minute", &REQUESTS_PER_MINUTE.to_string())
        .set("edge.trusted_proxies", r#"["127.0.0.1"]"#)
}

/// The same edge, with its count in Redis.
fn edge_with_redis(server: &Redis, prefix: &str, mesh: &Mesh) -> Setup {
    let setup = edge(mesh).set("limits.store", "redis").set("redis.url", server.url());
    // Test machines are slow under load.
    setup.set("redis.prefix", prefix).set("redis.timeout", "1s")
}

/// Sends a request from this client address. Whether it passed the limit: then the answer is TOKEN_MISSING.
async fn passes(edge: &Mesh, client: &str) -> bool {
    let answer = edge.rest().get("/v1/users/me").header("x-forwarded-for", client).send().await;
    if answer.status == 401 {
        answer.refused(Reason::TokenMissing);
        return true;
    }
    // One request passes each second, or every two seconds during a Redis outage.
    assert_rate_limited(answer, 1, 2);
    false
}

/// How many requests of this client pass before the first is refused.
async fn count_until_refused(edge: &Mesh, client: &str) -> u32 {
    let mut passed = 0;
    while passes(edge, client).await {
        passed += 1;
    }
    passed
}

/// Asserts that at least the burst passed, and at most the burst plus one request each interval.
#[track_caller]
fn assert_within_limit(passed: u32, elapsed: Duration, burst: u32, interval: Duration) {
    let bound = f64::from(burst) + elapsed.as_secs_f64() / interval.as_secs_f64();
    assert!(
        passed >= burst && f64::from(passed) <= bound,
        "{passed} requests passed in {elapsed:?}, the limit is {bound}"
    );
}

async fn component_state(edge: &Mesh, name: &str) -> Option<String> {
    let report: Value = edge.admin("/health/detailed").await.json();
    report["components"][name]["state"].as_str().map(str::to_owned)
}

async fn wait_for_state(edge: &Mesh, state: &str) {
    wait::until(state, async || (component_state(edge, "edge limits").await? == state).then_some(())).await;
}

#[tokio::test]
async fn the_request_limit_applies_per_client_address() {
    let mesh = Mesh::start();
    let edge = edge(&mesh).start();
    let start = Instant::now();
    // A forged x-forwarded-for entry does not change the counted address.
    let (first, forged) =
        (count_until_refused(&edge, "192.0.2.7").await, count_until_refused(&edge, "6.6.6.6, 192.0.2.7").await);
    let passed = first + forged;
    assert_within_limit(passed, start.elapsed(), REQUESTS_PER_MINUTE, Duration::from_secs(1));
    let refused = edge.metrics().await.sum("drystone_edge_requests_total", &[("status", "401")]);
    assert!(
        (refused - f64::from(passed)).abs() < 0.1,
        "{refused} tokens were refused, {passed} requests passed the limit"
    );

    assert!(passes(&edge, "192.0.2.8").await);
    edge.rest().get("/health").header("x-forwarded-for", "192.0.2.7").send().await.expect(200);
    // Refused requests do not count, so the limit recovers meanwhile.
    wait::until("a request passes again", async || passes(&edge, "192.0.2.7").await.then_some(())).await;

    assert!(edge.metrics().await.sum("drystone_rate_limited_total", &[("limit", "request_address")]) >= 2.0);
    assert_eq!(component_state(&edge, "edge limits").await, None, "an in-process limiter has no Redis component");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_edges_share_one_request_limit_in_redis() {
    const SAME_PREFIX: [&str; 2] = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"];

    let (mesh, server) = (Mesh::start(), Redis::shared());
    let prefix = server.prefix();
    let edges = [edge_with_redis(server, &prefix, &mesh).spawn(), edge_with_redis(server, &prefix, &mesh).spawn()];
    let edges = edges.map(|edge| Arc::new(edge.ready()));
    for edge in &edges {
        wait_for_state(edge, "up").await;
    }
    let start = Instant::now();
    let clients = (0..8).map(|client| {
        let (edge, address) = (edges[client % 2].clone(), SAME_PREFIX[client / 2 % 2]);
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
    assert_within_limit(passed, start.elapsed(), REQUESTS_PER_MINUTE, Duration::from_secs(1));
    for edge in &edges {
        assert!(passes(edge, "2001:db8:1:3::1").await);
        let fallbacks = edge.metrics().await.sum("drystone_rate_limit_fallbacks_total", &[]);
        assert!(fallbacks < 0.1, "{fallbacks} requests were counted without Redis");
    }
}

#[tokio::test]
async fn during_a_redis_outage_an_edge_enforces_a_stricter_local_limit() {
    let (mesh, mut server) = (Mesh::start(), Redis::start());
    let edge = edge_with_redis(&server, &server.prefix(), &mesh).start();
    wait_for_state(&edge, "up").await;
    server.stop();
    wait_for_state(&edge, "down").await;
    edge.admin("/ready").await.expect(200);
    let start = Instant::now();
    let passed = count_until_refused(&edge, "192.0.2.7").await;
    assert_within_limit(passed, start.elapsed(), REQUESTS_PER_MINUTE / 2, Duration::from_secs(2));
    let fallbacks = edge.metrics().await.sum("drystone_rate_limit_fallbacks_total", &[("limit", "request_address")]);
    assert!(fallbacks >= f64::from(passed), "{fallbacks} requests were counted without Redis, {passed} passed");

    server.start_again();
    wait_for_state(&edge, "up").await;
    let start = Instant::now();
    let passed = count_until_refused(&edge, "192.0.2.8").await;
    assert_within_limit(passed, start.elapsed(), REQUESTS_PER_MINUTE, Duration::from_secs(1));
}

#[tokio::test]
async fn a_quota_is_answered_with_its_own_reason() {
    let mesh = Mesh::setup().set("property.max_properties", "2").start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let create = async || {
        let body = json!({"displayName": "an engine"});
        mesh.rest().post("/v1/properties", body).bearer(&tokens.access).send().await
    };
    for _ in 0..2 {
        create().await.expect(200);
    }
    let refused = create().await;
    assert_eq!(refused.status, 429);
    refused.refused(Reason::QuotaExceeded);
}
