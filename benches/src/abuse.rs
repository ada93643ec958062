//! What others notice of strangers: GetMe over REST while they attack the edge or a service, and sign-ins while they guess passwords.
//!
//! Those who attack and who call GetMe have priorities as if they were on other machines ([`elsewhere`]).

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use drystone_tests::{
    Mesh, RestResponse, User,
    attacks::{
        floods,
        large::many_properties,
        raw::{self, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, INITIAL_WINDOW_SIZE},
    },
    unique_email,
};
use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::MissedTickBehavior};

use crate::{
    elsewhere,
    report::{Measurement, micros},
};

/// Runs of each; the median counts.
const RUNS: usize = 3;

/// The calls of a run, and the time from one to the next. Twice three runs are fewer than the requests of a minute that an address has.
const CALLS: usize = 800;
const PERIOD: Duration = Duration::from_millis(5);

/// Networks that guess passwords, each within its limits.
const NETWORKS: usize = 400;

/// Users who sign in meanwhile, and how often each does: ten times a minute are allowed.
const USERS: usize = 4;
const SIGN_INS: usize = 8;

/// Measures GetMe beside each attack, and then sign-ins.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let mut rows = beside_attacks().await?;
    rows.extend(beside_guesses().await?);
    Ok(rows)
}

/// What attackers know.
#[derive(Clone)]
struct Target {
    edge: SocketAddr,
    /// The port of a service, which no stranger should reach.
    service: SocketAddr,
    /// The token of a member with large pages of properties.
    token: Arc<str>,
}

/// One round of an attack.
type Attack = fn(Target) -> BoxFuture<'static, ()>;

const ATTACKS: [(&str, Attack); 8] = [
    ("streams that are reset at once", |target| rapid_reset(target).boxed()),
    ("headers that never end", |target| endless_headers(target).boxed()),
    ("control frames", |target| control_frames(target).boxed()),
    ("10,000 bodies without a token", |target| denied(target).boxed()),
    ("300 unfinished heads", |target| unfinished_heads(target).boxed()),
    ("100 unread pages", |target| unread_pages(target).boxed()),
    ("malformed HTTP/1.1", |target| malformed(target).boxed()),
    ("400 unfinished TLS handshakes", |target| unfinished_handshakes(target).boxed()),
];

/// Each attack has a mesh of its own, with the default limits of requests.
async fn beside_attacks() -> Result<Vec<Measurement>> {
    const NAME: &str = "GetMe over REST, 200 a second, p99";
    let (mut idle, mut attacked) = (Vec::new(), Vec::new());
    for (attack, round) in ATTACKS {
        let mesh = Mesh::setup().with_default_rate_limits().start();
        let (edge, service) = (mesh.rest().address(), mesh.grpc_address("user"));
        let token = User::signed_in(&mesh).await.1.access;
        let large = many_properties(&mesh, 50).await.access;
        idle.push(get_me(edge, &token).await?);
        let target = Target { edge, service, token: format!("Bearer {large}").into() };
        let attackers = elsewhere::attackers()?;
        let attacking = attackers.spawn(async move {
            loop {
                round(target.clone()).await;
            }
        });
        let measured = get_me(edge, &token).await.with_context(|| format!("beside {attack}"))?;
        ensure!(!attacking.is_finished(), "the attack has failed: {attack}");
        attackers.shutdown_background();
        attacked.push((attack, measured));
        drop(mesh.stop());
    }
    let idle = Measurement::plain(NAME, median(idle), "us");
    let mut rows = Vec::new();
    for (attack, p99) in attacked {
        rows.push(Measurement::plain(format!("the same beside {attack}"), p99, "us").within(&idle, 3.0));
    }
    rows.insert(0, idle);
    Ok(rows)
}

/// The 99th percentile of the median run, in microseconds. A response other than 200 fails it.
async fn get_me(edge: SocketAddr, token: &str) -> Result<f64> {
    let request =
        Request::get("/v1/users/me").header("host", "edge").header("authorization", format!("Bearer {token}"));
    let request = request.body(Empty::<Bytes>::new())?;
    elsewhere::caller(async move || {
        let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(edge).await?)).await?;
        tokio::spawn(connection);
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(paced(&mut sender, &request).await?);
        }
        Ok(median(runs))
    })
    .await
}

/// One run.
async fn paced(sender: &mut http1::SendRequest<Empty<Bytes>>, request: &Request<Empty<Bytes>>) -> Result<f64> {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        ticks.tick().await;
        let start = Instant::now();
        let response = sender.send_request(request.clone()).await?;
        ensure!(response.status().is_success(), "{}", response.status());
        response.into_body().collect().await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(micros(times[CALLS * 99 / 100]))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn health() -> Vec<u8> {
    raw::headers(&raw::request("GET", "/health"))
}

async fn rapid_reset(target: Target) {
    floods::rapid_reset(Http2::connect(target.edge, &[]).await, &health()).await;
}

async fn endless_headers(target: Target) {
    let more = raw::headers(&[("x", &"y".repeat(1000))]);
    floods::endless_headers(Http2::connect(target.edge, &[]).await, &health(), &more).await;
}

async fn control_frames(target: Target) {
    for (_, bytes) in floods::control_frames() {
        floods::repeat(Http2::connect(target.edge, &[]).await, &bytes).await;
    }
}

/// Requests whose body nobody reads, a hundred at a time, each answered.
async fn denied(target: Target) {
    let block = raw::headers(&raw::request("POST", "/v1/properties"));
    let mut attacker = Http2::connect(target.edge, &[]).await;
    for batch in 0..100_u32 {
        for number in 0..100 {
            let stream = 1 + 2 * (100 * batch + number);
            let request =
                [raw::frame(HEADERS, END_HEADERS, stream, &block), raw::frame(DATA, END_STREAM, stream, &[b'x'; 2000])];
            if attacker.send(&request.concat()).await.is_err() {
                return;
            }
        }
        if attacker.answers(100).await < 100 {
            return;
        }
    }
}

async fn unfinished_heads(target: Target) {
    let mut held = Vec::new();
    for _ in 0..300 {
        let mut stream = raw::connect(target.edge).await;
        let start = format!("GET /v1/users/me HTTP/1.1\r\nhost: edge\r\nx: {}", "x".repeat(15_000));
        let _ = stream.write_all(start.as_bytes()).await;
        held.push(stream);
    }
}

async fn unread_pages(target: Target) {
    let mut fields = raw::request("GET", "/v1/properties?pageSize=200").to_vec();
    fields.push(("authorization", &target.token));
    let block = raw::headers(&fields);
    let mut attacker = Http2::connect(target.edge, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    for number in 0..100 {
        let request = raw::frame(HEADERS, END_STREAM | END_HEADERS, 1 + 2 * number, &block);
        if attacker.send(&request).await.is_err() {
            return;
        }
    }
    attacker.answers(100).await;
}

async fn malformed(target: Target) {
    let mut stream = raw::connect(target.edge).await;
    let many_headers = "x: y\r\n".repeat(5000);
    let request = format!("GET /v1/users/me HTTP/1.1\r\nhost: edge\r\n{many_headers}\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
}

async fn unfinished_handshakes(target: Target) {
    let mut held = Vec::new();
    for _ in 0..400 {
        let Ok(mut stream) = TcpStream::connect(target.service).await else { return };
        // The beginning of a ClientHello.
        let _ = stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await;
        held.push(stream);
    }
}

/// A sign-in through a proxy that states this address.
async fn sign_in(mesh: &Mesh, address: &str, user: &User, device: &str) -> RestResponse {
    let body = json!({"email": user.email, "password": user.password, "deviceToken": device});
    mesh.rest().post("/v1/auth/login", body).header("x-forwarded-for", address).send().await
}

async fn beside_guesses() -> Result<Vec<Measurement>> {
    let setup = Mesh::setup().with_default_rate_limits().set("edge.trusted_proxies", r#"["127.0.0.1"]"#);
    let mesh = setup.set("limits.requests_per_minute", "0").set("limits.registration_per_minute", "0").start();
    let mut users = Vec::new();
    for number in 0..USERS {
        let user = User::register(&mesh).await;
        let first = sign_in(&mesh, &format!("192.0.2.{number}"), &user, "").await.expect(200).json();
        let device = first["deviceToken"].as_str().context("no device token")?.to_owned();
        users.push((user, device));
    }

    let rest = mesh.rest();
    let mut guessing = JoinSet::new();
    for network in 0..NETWORKS {
        guessing.spawn(async move {
            // Ten a minute are within the limits of a network.
            for _ in 0..10 {
                let body = json!({"email": unique_email(), "password": "not the password"});
                let guess = rest.post("/v1/auth/login", body);
                let _ = guess.header("x-forwarded-for", &format!("2001:db8:{network:x}::1")).try_send().await;
            }
        });
    }
    let full = [("reason", "queue_full")];
    let started = Instant::now();
    while mesh.metrics().await.sum("drystone_password_hashes_dropped_total", &full) < 1.0 {
        ensure!(started.elapsed() < Duration::from_secs(20), "the hashing queue is never full");
    }
    let (mut known, mut new, mut refused) = (Vec::new(), Vec::new(), 0.0);
    for number in 0..USERS * SIGN_INS {
        let (user, device) = &users[number % USERS];
        let start = Instant::now();
        let response = sign_in(&mesh, &format!("192.0.2.{}", number % USERS), user, device).await;
        ensure!(response.status == 200, "known device: {}", response.text());
        known.push(start.elapsed().as_secs_f64() * 1e3);
        if number % 5 == 0 {
            let (start, other) = (Instant::now(), &users[number / 5 % USERS].0);
            match sign_in(&mesh, &format!("198.51.100.{}", 1 + number), other, "").await.status {
                200 => new.push(start.elapsed().as_secs_f64() * 1e3),
                // Its turn did not come in time, or the account has had too many guesses.
                429 | 503 | 504 => refused += 1.0,
                status => bail!("new device: {status}"),
            }
        }
        if guessing.is_empty() {
            break;
        }
    }
    guessing.abort_all();
    let longest = known.iter().copied().fold(0.0, f64::max);
    let name = format!("SignIn on a known device beside guesses from {NETWORKS} networks, longest");
    let mut rows = vec![Measurement::plain(name, longest, "ms").under(2000.0)];
    if let Some(longest) = new.iter().copied().reduce(f64::max) {
        rows.push(Measurement::plain("SignIn on a new device beside them, longest that succeeded", longest, "ms"));
    }
    rows.push(Measurement::plain("SignIn on a new device beside them, refused", refused, "of 7"));
    drop(mesh.stop());
    Ok(rows)
}
