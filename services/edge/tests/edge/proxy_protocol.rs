//! Proxies that state their client with the PROXY protocol.

use drystone_edge::Config;
use drystone_mesh::config::ConfigDuration;
use tokio::time::timeout;

use crate::{
    Edge,
    backend::FakeBackend,
    client::{self, HttpClient},
};

fn config(trusted: &[&str]) -> Config {
    let trusted_proxies = trusted.iter().map(|network| network.parse().unwrap()).collect();
    Config { trusted_proxies, proxy_protocol: true, ..Config::default() }
}

/// A connection for a client, as a proxy opens it.
async fn connect(edge: &Edge, client: &str) -> HttpClient {
    let mut connection = edge.client().await;
    connection.send(format!("PROXY TCP4 {client} 127.0.0.1 40000 8080\r\n").as_bytes()).await;
    connection
}

#[tokio::test]
async fn the_client_is_the_one_that_the_proxy_states() {
    let edge = Edge::limited(1, config(&["127.0.0.1", "10.0.0.0/8"])).await;
    let status = async |client: &str, headers: &str| {
        let mut connection = connect(&edge, client).await;
        connection.request(&format!("GET /v1/things/one{headers}"), "").await.status
    };
    assert_eq!(status("192.0.2.1", "").await, 200);
    assert_eq!(status("192.0.2.1", "").await, 429);
    // A client that is no trusted proxy cannot name another one.
    assert_eq!(status("192.0.2.1", "\nx-forwarded-for: 192.0.2.9").await, 429);
    assert_eq!(status("192.0.2.2", "").await, 200);
    // A trusted proxy in front of the one that connects.
    assert_eq!(status("10.0.0.1", "\nx-forwarded-for: 192.0.2.3").await, 200);
    assert_eq!(status("192.0.2.3", "").await, 429);
    // A client that the proxy does not state cannot name one.
    for (number, header) in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"].into_iter().enumerate() {
        let mut unstated = edge.client().await;
        unstated.send(header).await;
        let reply = unstated.request("GET /v1/things/one\nx-forwarded-for: 192.0.2.77", "").await;
        assert_eq!(reply.status, if number == 0 { 200 } else { 429 }, "both count as the proxy");
    }
    // A proxy that speaks for itself.
    let mut check = edge.client().await;
    check.send(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").await;
    assert_eq!(check.request("GET /health", "").await.status, 200);
}

#[tokio::test]
async fn a_connection_without_a_header_is_closed_without_a_response() {
    let edge = Edge::with_backend(FakeBackend::echo(), config(&["127.0.0.1"])).await;
    for start in
        ["GET /health HTTP/1.1\r\nhost: edge\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PROXY TCP4 a b 1 2\r\n"]
    {
        let mut connection = edge.client().await;
        connection.send(start.as_bytes()).await;
        assert!(connection.is_closed().await, "{start}");
    }
}

#[tokio::test]
async fn only_trusted_proxies_may_connect() {
    let edge = Edge::with_backend(FakeBackend::echo(), config(&["10.0.0.0/8"])).await;
    let mut connection = edge.client().await;
    assert!(connection.is_closed().await);
}

#[tokio::test]
async fn an_unfinished_header_is_closed_at_the_timeout_of_the_first_request() {
    let config = Config { request_time: ConfigDuration::millis(50), ..config(&["127.0.0.1"]) };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    for start in ["", "PROXY TCP4 192.0.2.1"] {
        let mut connection = edge.client().await;
        connection.send(start.as_bytes()).await;
        assert!(connection.is_closed().await, "{start}");
    }
}

#[tokio::test]
async fn connections_are_limited_by_the_client_behind_the_proxy() {
    let config = Config { connections_per_address: 2, ..config(&["127.0.0.1"]) };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    let mut other = connect(&edge, "192.0.2.2").await;
    assert_eq!(other.request("GET /health", "").await.status, 200);
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut connection = connect(&edge, "192.0.2.1").await;
        assert_eq!(connection.request("GET /health", "").await.status, 200);
        connections.push(connection);
    }
    // One that was idle has made place.
    let [first, second, third] = connections.as_mut_slice() else { panic!("three connections") };
    let is_closed = tokio::select! {
        is_closed = first.is_closed() => is_closed,
        is_closed = second.is_closed() => is_closed,
    };
    assert!(is_closed);
    assert_eq!(third.request("GET /health", "").await.status, 200);
    assert_eq!(other.request("GET /health", "").await.status, 200);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_header() {
    let long = ConfigDuration::seconds(600);
    let config = Config { request_time: long, stop_time: long, ..config(&["127.0.0.1"]) };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    let mut connection = edge.client().await;
    connection.send(b"PROXY ").await;
    timeout(client::TIMEOUT, edge.stop()).await.expect("the edge stops in time");
    assert!(connection.is_closed().await);
}
