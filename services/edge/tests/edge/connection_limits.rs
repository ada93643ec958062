//! What one client can hold: connections, request heads, and responses that it does not read.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use drystone_edge::Config;
use drystone_mesh::config::ConfigDuration;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle, time::timeout};

use crate::{
    Edge,
    backend::FakeBackend,
    client::{self, TIMEOUT},
};

type Sender = http2::SendRequest<Full<Bytes>>;

/// An HTTP/2 connection with this window for each stream.
async fn http2(edge: &Edge, window: u32) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = TokioIo::new(TcpStream::connect(edge.address).await.unwrap());
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .initial_connection_window_size(16 << 20)
        .handshake(stream)
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

fn health() -> http::Request<Full<Bytes>> {
    http::Request::get("http://edge/health").body(Full::default()).unwrap()
}

/// A request whose response has this size.
fn echo_of(size: usize) -> http::Request<Full<Bytes>> {
    http::Request::post("http://edge/v1/things")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(format!("{{\"text\": \"{}\"}}", "x".repeat(size)))))
        .unwrap()
}

/// Waits while the condition holds.
async fn wait_while(condition: impl Fn() -> bool) {
    let waiting = async {
        while condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, waiting).await.expect("the condition ends in time");
}

/// The bytes of responses that clients have not taken.
fn unsent(edge: &Edge) -> usize {
    let metrics = edge.metrics.render();
    let line = metrics.lines().find_map(|line| line.strip_prefix("drystone_edge_unsent_bytes ")).unwrap();
    line.parse().unwrap()
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let config = Config { idle_time: ConfigDuration::millis(50), ..Config::default() };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    let (mut sender, connection) = http2(&edge, 1 << 16).await;
    assert_eq!(sender.send_request(health()).await.unwrap().status(), 200);
    // With GOAWAY, not with an error.
    timeout(TIMEOUT, connection).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out() {
    let edge = Edge::with_backend(FakeBackend::echo(), Config { connections: Some(20), ..Config::default() }).await;
    let mut held = Vec::new();
    for number in 0..60 {
        let (mut sender, connection) = http2(&edge, 1 << 16).await;
        assert_eq!(sender.send_request(health()).await.unwrap().status(), 200, "{number}");
        held.push((sender, connection));
    }
    let mut client = edge.client().await;
    assert_eq!(client.request("GET /health", "").await.status, 200);
    // Not the newest, which a client is about to use.
    assert_eq!(held.last_mut().unwrap().0.send_request(health()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn unfinished_heads_do_not_keep_others_out() {
    let edge = Edge::with_backend(FakeBackend::echo(), Config { connections: Some(20), ..Config::default() }).await;
    let mut held = Vec::new();
    for _ in 0..60 {
        let mut client = edge.client().await;
        client.send(format!("GET /health HTTP/1.1\r\nhost: edge\r\nx: {}", "x".repeat(10_000)).as_bytes()).await;
        held.push(client);
    }
    assert_eq!(edge.client().await.request("GET /health", "").await.status, 200);
}

#[tokio::test]
async fn a_head_of_more_than_16_kib_is_refused() {
    let edge = Edge::echo().await;
    let large = format!("GET /health\nx-large: {}", "x".repeat(16 * 1024));
    assert_eq!(edge.request(&large, "").await.status, 431);
    let (mut sender, _connection) = http2(&edge, 1 << 16).await;
    let mut request = health();
    request.headers_mut().insert("x-large", "x".repeat(16 * 1024).parse().unwrap());
    assert_eq!(sender.send_request(request).await.unwrap().status(), 431);
    assert_eq!(sender.send_request(health()).await.unwrap().status(), 200, "the connection is kept");
}

#[tokio::test]
async fn connections_wait_while_the_edge_is_full_of_requests() {
    let (slow, called, resume) = FakeBackend::blocking();
    let edge = Edge::with_backend(slow, Config { connections: Some(1), ..Config::default() }).await;
    let mut first = edge.client().await;
    first.send(&client::write("GET /v1/things/one", b"")).await;
    called.notified().await;
    let mut second = edge.client().await;
    second.send(&client::write("GET /health", b"")).await;
    assert!(timeout(Duration::from_millis(50), second.receive(false)).await.is_err());
    resume.notify_one();
    assert_eq!(first.receive(false).await.status, 200);
    // The first is idle now, and closed for the second.
    assert_eq!(second.receive(false).await.status, 200);
    assert!(first.is_closed().await);
}

#[tokio::test]
async fn an_address_has_a_limit_of_its_own() {
    let config = Config { connections_per_address: 3, ..Config::default() };
    let never = FakeBackend::new(Arc::new(|_| Box::pin(std::future::pending())));
    let edge = Edge::with_backend(never, config.clone()).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let (mut sender, connection) = http2(&edge, 1 << 16).await;
        let request = tokio::spawn(async move { sender.send_request(echo_of(1)).await });
        held.push((request, connection));
    }
    wait_while(|| edge.backend.received().len() < 3).await;
    assert!(edge.client().await.is_closed().await, "all of its connections have a request");

    // A trusted proxy has many clients.
    let trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let edge = Edge::with_backend(FakeBackend::echo(), Config { trusted_proxies, ..config }).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = edge.client().await;
        assert_eq!(client.request("GET /health", "").await.status, 200);
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.request("GET /health", "").await.status, 200);
    }
}

/// 300 responses of 900 KB, none of which is read.
#[tokio::test]
async fn unread_responses_take_a_bounded_memory_and_then_their_connection() {
    const MEMORY: usize = 16 << 20;
    let config = Config { response_memory: Some(MEMORY), send_time: ConfigDuration::millis(500), ..Config::default() };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    let mut attackers = Vec::new();
    for _ in 0..3 {
        // The client answers pings, and never takes a byte of a body.
        let (mut sender, connection) = http2(&edge, 0).await;
        let mut statuses = Vec::new();
        for _ in 0..100 {
            let response = timeout(TIMEOUT, sender.send_request(echo_of(900_000))).await.unwrap();
            let Ok(response) = response else { break };
            statuses.push(response.status().as_u16());
            // One address may have a quarter, and errors.
            assert!(unsent(&edge) <= MEMORY / 4 + 100 * 4096, "{}", unsent(&edge));
            attackers.push(response);
        }
        assert!(statuses.contains(&429), "{statuses:?}");
        let mut other = edge.client().await;
        assert_eq!(other.request("GET /health", "").await.status, 200);
        drop(sender);
        let end = timeout(TIMEOUT, connection).await.expect("closed after the send timeout");
        drop(end);
    }
    wait_while(|| unsent(&edge) > 0).await;
}

/// The answers to pings, which it reads, are no progress.
#[tokio::test]
async fn a_client_that_opens_no_window_loses_its_connection() {
    let config = Config { send_time: ConfigDuration::millis(200), ..Config::default() };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    let stream = TokioIo::new(TcpStream::connect(edge.address).await.unwrap());
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(0)
        .keep_alive_interval(Duration::from_millis(10))
        .keep_alive_while_idle(true)
        .handshake(stream)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    // The smallest response there is.
    let unread = sender.send_request(health()).await.unwrap();
    let _ended = timeout(TIMEOUT, connection).await.expect("closed after the send timeout");
    drop(unread);
    wait_while(|| unsent(&edge) > 0).await;
}

/// A request of a client, as a proxy hands it on.
fn of_client(client: &'static str, mut request: http::Request<Full<Bytes>>) -> http::Request<Full<Bytes>> {
    request.headers_mut().insert("x-forwarded-for", http::HeaderValue::from_static(client));
    request
}

/// An edge that is reached through a proxy.
async fn behind_proxy(backend: FakeBackend, config: Config) -> Edge {
    let trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    Edge::with_backend(backend, Config { trusted_proxies, ..config }).await
}

/// The connection of a proxy is shared by its clients, of which one does not read.
#[tokio::test]
async fn behind_a_proxy_a_client_that_reads_nothing_loses_its_response_alone() {
    let edge =
        behind_proxy(FakeBackend::echo(), Config { send_time: ConfigDuration::millis(1000), ..Config::default() })
            .await;
    let (mut proxy, connection) = http2(&edge, 1 << 16).await;
    let unread = proxy.send_request(of_client("198.51.100.1", echo_of(900_000))).await.unwrap();
    assert!(unsent(&edge) > 500_000);
    let others = async {
        while unsent(&edge) > 1000 {
            let response = proxy.send_request(of_client("198.51.100.2", echo_of(100_000))).await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(response.into_body().collect().await.unwrap().to_bytes().len() > 100_000);
        }
    };
    timeout(TIMEOUT, others).await.expect("the response is given up");
    assert_eq!(proxy.send_request(of_client("198.51.100.2", health())).await.unwrap().status(), 200);
    assert!(!connection.is_finished());
    // What was on the way, and then the end of it.
    unread.into_body().collect().await.unwrap_err();
}

#[tokio::test]
async fn each_client_behind_a_proxy_has_a_share_of_the_memory() {
    const MEMORY: usize = 8 << 20;
    let edge = behind_proxy(FakeBackend::echo(), Config { response_memory: Some(MEMORY), ..Config::default() }).await;
    let (mut proxy, _connection) = http2(&edge, 0).await;
    let mut unread = Vec::new();
    let mut greedy = Vec::new();
    for _ in 0..20 {
        let response = proxy.send_request(of_client("198.51.100.1", echo_of(900_000))).await.unwrap();
        greedy.push(response.status().as_u16());
        unread.push(response);
    }
    assert!(greedy.contains(&200) && greedy.contains(&429), "{greedy:?}");
    assert!(unsent(&edge) <= MEMORY / 4 + 20 * 4096, "{}", unsent(&edge));
    let other = proxy.send_request(of_client("198.51.100.2", echo_of(900_000))).await.unwrap();
    assert_eq!(other.status(), 200);
}

#[tokio::test]
async fn a_client_behind_a_proxy_whose_share_is_nearly_full_is_refused_before_any_work() {
    let edge = behind_proxy(FakeBackend::echo(), Config { response_memory: Some(8 << 20), ..Config::default() }).await;
    let (mut proxy, _connection) = http2(&edge, 0).await;
    let mut unread = Vec::new();
    // 1.8 of the 2 MiB that a client may have.
    for _ in 0..2 {
        let response = proxy.send_request(of_client("198.51.100.1", echo_of(900_000))).await.unwrap();
        assert_eq!(response.status(), 200);
        unread.push(response);
    }
    let refused = proxy.send_request(of_client("198.51.100.1", echo_of(10))).await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(edge.backend.received().len(), 2);
    let other = proxy.send_request(of_client("198.51.100.2", echo_of(10))).await.unwrap();
    assert_eq!(other.status(), 200);
}

fn page(text: &str) -> http::Request<Full<Bytes>> {
    http::Request::get(format!("http://edge/v1/pages?text={text}")).body(Full::default()).unwrap()
}

/// How many calls with this text the backend has received.
fn calls(edge: &Edge, text: &str) -> usize {
    edge.backend.received().iter().filter(|call| call.message["text"] == text).count()
}

/// More pages than have their turns within the time that a request waits for its own, where each hangs and keeps it as long as it may.
const MANY: usize = 400;

/// Sends many pages of one client, over several connections: one has 100 streams.
async fn send_many(edge: &Edge, page: impl Fn() -> http::Request<Full<Bytes>>) -> Vec<JoinHandle<u16>> {
    let mut pages = Vec::new();
    for _ in 0..MANY / 100 {
        let (mut sender, _connection) = http2(edge, 1 << 16).await;
        for _ in 0..100 {
            let response = sender.send_request(page());
            pages.push(tokio::spawn(async move { response.await.unwrap().status().as_u16() }));
        }
    }
    pages
}

/// Pages are expensive: those of one client have turns, which a page that hangs gives up, and wait for them for a bounded time.
#[tokio::test]
async fn pages_of_one_client_take_turns() {
    let (backend, permits) = FakeBackend::waiting();
    let edge = Edge::with_backend(backend, Config::default()).await;
    let pages = send_many(&edge, || page("many")).await;
    wait_while(|| calls(&edge, "many") == 0).await;
    // What is no page does not wait.
    let mut client = edge.client().await;
    client.send(&client::write("POST /v1/things", br#"{"text": "mine"}"#)).await;
    wait_while(|| calls(&edge, "mine") == 0).await;
    assert!(calls(&edge, "many") < MANY, "some wait");
    let refused = edge.request("GET /v1/pages", "").await;
    assert_eq!((refused.status, &*refused.reason()), (429, "OVERLOADED"), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), "1");
    permits.add_permits(1);
    assert_eq!(client.receive(false).await.status, 200);
    let mut statuses = Vec::new();
    for page in pages {
        statuses.push(page.await.unwrap());
    }
    let answered = statuses.iter().filter(|status| **status == 200).count();
    assert!(answered > 8, "those that hang give up their turns: {statuses:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    assert_eq!(edge.request("GET /v1/pages", "").await.status, 200);
}

#[tokio::test]
async fn behind_a_proxy_each_client_has_its_own_turns() {
    let (backend, permits) = FakeBackend::waiting();
    let edge = behind_proxy(backend, Config::default()).await;
    let (mut proxy, _connection) = http2(&edge, 1 << 16).await;
    let pages = send_many(&edge, || of_client("198.51.100.1", page("many"))).await;
    wait_while(|| calls(&edge, "many") == 0).await;
    let mine = tokio::spawn(proxy.send_request(of_client("198.51.100.2", page("mine"))));
    // Where the proxy states no client, nobody knows how many there are.
    let unstated: Vec<_> = (0..10).map(|_| tokio::spawn(proxy.send_request(page("unstated")))).collect();
    wait_while(|| calls(&edge, "mine") == 0 || calls(&edge, "unstated") < 10).await;
    assert!(calls(&edge, "many") < MANY, "some wait");
    permits.add_permits(1);
    for page in unstated.into_iter().chain([mine]) {
        assert_eq!(page.await.unwrap().unwrap().status(), 200);
    }
    for page in pages {
        assert_eq!(page.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_response_that_is_reset_counts_no_more() {
    let edge = Edge::echo().await;
    let (mut sender, connection) = http2(&edge, 1 << 16).await;
    for _ in 0..30 {
        let mut body = sender.send_request(echo_of(900_000)).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        wait_while(|| unsent(&edge) > 0).await;
    }
    assert!(!connection.is_finished());
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_its_whole_response() {
    let config = Config { send_time: ConfigDuration::millis(200), ..Config::default() };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    let (mut sender, _connection) = http2(&edge, 1 << 16).await;
    let mut body = sender.send_request(echo_of(900_000)).await.unwrap().into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().data_ref().map_or(0, Bytes::len);
        // In total longer than the timeout, which only counts while nothing is read.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(read > 900_000);
}

#[tokio::test]
async fn a_client_of_http1_that_reads_nothing_loses_its_connection() {
    let config =
        Config { send_time: ConfigDuration::millis(200), response_memory: Some(64 << 20), ..Config::default() };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    let body = format!("{{\"text\": \"{}\"}}", "x".repeat(900_000));
    let request = client::write("POST /v1/things", body.as_bytes());
    // The edge does not read the next request before it has sent the response.
    let flood = async { while stream.write_all(&request).await.is_ok() {} };
    timeout(TIMEOUT, flood).await.expect("the connection ends");
    wait_while(|| unsent(&edge) > 0).await;
}
