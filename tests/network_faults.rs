//! Faults of the network between processes: between the edge and a service, and between services and their stores.
//!
//! A [`FaultProxy`] in front of a server delays, swallows or cuts what passes. Calls end by their deadline, succeed through
//! another instance where they can, and the mesh recovers without intervention.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use drystone_backends::{Postgres, Redis};
use drystone_tests::{
    Mesh, RestResponse, Setup, Tokens, User,
    fault_proxy::{Direction, FaultProxy, Mode},
    services, services_on_postgres, wait,
};
use serde_json::Value;

const ISSUER: &str = "https://id.example.com";

/// The deadline of a request to the edge.
const DEADLINE: Duration = Duration::from_secs(2);

/// How much later than its deadline an answer may arrive, on a slow machine.
const MARGIN: Duration = Duration::from_secs(10);

/// A mesh, and a second edge that reaches the user service through a proxy.
struct Proxied {
    edge: Mesh,
    proxy: FaultProxy,
    tokens: Tokens,
    // Ends last.
    mesh: Mesh,
}

impl Proxied {
    /// `addresses` makes the addresses of the user service from that of the proxy and its own.
    async fn start(addresses: impl FnOnce(SocketAddr, SocketAddr) -> Vec<SocketAddr>) -> Self {
        let mesh = Mesh::setup().set("issuer", ISSUER).start();
        let user = mesh.grpc_address("user");
        let proxy = FaultProxy::start(user).await;
        let peers = services().into_iter().filter(|name| *name != "user");
        let edge = peers.fold(Mesh::setup().serve(&["edge"], mesh.certificates()), |setup, name| {
            setup.set(&format!("peers.{name}"), &mesh.grpc_address(name).to_string())
        });
        let addresses = drystone_tests::cluster::peer_list(&addresses(proxy.address(), user));
        let edge = edge
            .set("issuer", ISSUER)
            .set("edge.deadline", "2s")
            .set("peers.user.addresses", &addresses)
            .set("peers.user.probe_interval", "200ms")
            .start();
        let (_, tokens) = User::signed_in(&mesh).await;
        let this = Self { edge, proxy, tokens, mesh };
        this.until_answered().await;
        this
    }

    async fn me(&self) -> RestResponse {
        self.edge.rest().get("/v1/users/me").bearer(&self.tokens.access).send().await
    }

    async fn until_answered(&self) {
        wait::until("the edge reaches the user service", async || (self.me().await.status == 200).then_some(())).await;
    }

    /// The endpoints of the user service, as the edge reports them.
    async fn endpoints(&self) -> Vec<Value> {
        let report = self.edge.admin("/health/detailed").await.expect(200).json();
        let components = report["components"].as_object().unwrap();
        let (_, component) = components.iter().find(|(name, _)| name.ends_with("-> user")).expect("the edge calls it");
        component["endpoints"].as_array().unwrap().clone()
    }

    /// Waits until the breaker of the proxied endpoint is closed, or is not.
    async fn until_breaker_is_closed(&self, expected: bool) {
        let address = self.proxy.address().to_string();
        wait::until(&format!("the breaker is closed: {expected}"), async || {
            let endpoints = self.endpoints().await;
            let proxied = endpoints.iter().find(|endpoint| endpoint["address"] == *address)?;
            ((proxied["breaker"] == "closed") == expected).then_some(())
        })
        .await;
    }
}

/// Sends a request and returns the answer, which has arrived in time.
async fn in_time(request: impl Future<Output = RestResponse>) -> RestResponse {
    let start = Instant::now();
    let answer = tokio::time::timeout(DEADLINE + MARGIN, request).await.expect("the deadline holds");
    println!("{} after {:?}", answer.status, start.elapsed());
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_into_a_black_hole_is_answered_by_its_deadline() {
    let proxied = Proxied::start(|proxy, _| vec![proxy]).await;
    proxied.proxy.set(Mode::BlackHole);
    let first = in_time(proxied.me()).await;
    assert_eq!(first.status, 504, "{first:?}");
    for _ in 0..3 {
        let later = in_time(proxied.me()).await;
        assert!([503, 504].contains(&later.status), "{later:?}");
    }
    // Others do not need the user service.
    proxied.edge.rest().get("/v1/properties").bearer(&proxied.tokens.access).send().await.expect(200);
    proxied.proxy.set(Mode::Pass);
    proxied.until_answered().await;
    proxied.mesh.rest().get("/v1/users/me").bearer(&proxied.tokens.access).send().await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_succeed_through_another_instance_while_connections_are_cut() {
    let proxied = Proxied::start(|proxy, direct| vec![proxy, direct]).await;
    for mode in [Mode::CutAfter(2000), Mode::Cut] {
        proxied.proxy.set(mode);
        for _ in 0..50 {
            proxied.me().await.expect(200);
        }
    }
    proxied.until_breaker_is_closed(false).await;
    let closed = [("service", "user"), ("group", "default"), ("state", "closed")];
    wait::until("the other breaker is the only closed one", async || {
        let count = proxied.edge.metrics().await.sum("drystone_client_breakers", &closed);
        ((count - 1.0).abs() < 0.1).then_some(())
    })
    .await;
    proxied.proxy.set(Mode::Pass);
    proxied.until_breaker_is_closed(true).await;
    proxied.me().await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_connection_between_edge_and_service_is_replaced() {
    let proxied = Proxied::start(|proxy, _| vec![proxy]).await;
    let accepted = proxied.proxy.accepted();
    proxied.proxy.set_present(Mode::HalfOpen(Direction::ToServer));
    in_time(proxied.me()).await;
    proxied.until_answered().await;
    assert!(proxied.proxy.accepted() > accepted, "over a new connection");
}

/// A mesh with stores behind a proxy.
fn with_deadline(setup: Setup) -> Setup {
    setup.set("edge.deadline", "2s")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_swallows_everything_fails_requests_in_time() {
    let server = Postgres::temporary().await;
    let database = server.database().await;
    let mut url = database.url().clone();
    let port = url.port().expect("the URL has a port");
    let proxy = FaultProxy::start(([127, 0, 0, 1], port).into()).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.address().port())).unwrap();
    let setup = services_on_postgres().into_iter().fold(with_deadline(Mesh::setup()), |setup, service| {
        setup.set(&format!("{service}.database.url"), url.as_str())
    });
    let mesh = setup.start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let me = async || mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await;
    me().await.expect(200);
    for mode in [Mode::BlackHole, Mode::Cut] {
        proxy.set(mode);
        for _ in 0..2 {
            let answer = in_time(me()).await;
            assert!([503, 504].contains(&answer.status), "{mode:?}: {answer:?}");
        }
        proxy.set(Mode::Pass);
        wait::until("the database is reached again", async || (me().await.status == 200).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_swallows_everything_fails_only_what_needs_it() {
    let server = Redis::start();
    let address: SocketAddr = server.url().trim_start_matches("redis://").parse().expect("the URL has an address");
    let proxy = FaultProxy::start(address).await;
    let mesh = with_deadline(Mesh::setup())
        .set("session.store", "redis")
        .set("redis.url", &format!("redis://{}", proxy.address()))
        .set("redis.prefix", &server.prefix())
        .set("redis.timeout", "1s")
        .start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let sessions = async || mesh.rest().get("/v1/sessions").bearer(&tokens.access).send().await;
    sessions().await.expect(200);
    for mode in [Mode::BlackHole, Mode::HalfOpen(Direction::ToClient), Mode::Cut] {
        proxy.set(mode);
        let answer = in_time(sessions()).await;
        assert!([503, 504].contains(&answer.status), "{mode:?}: {answer:?}");
        // The access token is verified without it.
        mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
        proxy.set(Mode::Pass);
        wait::until("Redis is reached again", async || (sessions().await.status == 200).then_some(())).await;
    }
}
