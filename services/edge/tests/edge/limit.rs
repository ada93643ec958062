//! The rate limit of requests.

use std::time::{Duration, Instant};

use drystone_edge::Config;

use crate::{
    Edge,
    client::{self, HttpClient, Reply},
};

/// The delay of a rate-limited response, which is at most `max` seconds.
#[track_caller]
fn retry_delay(reply: &Reply, max: u64) -> Duration {
    assert_eq!((reply.status, reply.reason().as_str()), (429, "RATE_LIMITED"), "{}", reply.text());
    let seconds: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=max).contains(&seconds), "{seconds}");
    let delay = reply.detail("RetryInfo")["retryDelay"].as_str().unwrap().to_owned();
    let delay = Duration::from_secs_f64(delay.trim_end_matches('s').parse().unwrap());
    assert!(delay <= Duration::from_secs(seconds), "{delay:?}");
    delay
}

fn trusting_localhost() -> Config {
    Config { trusted_proxies: vec!["127.0.0.1".parse().unwrap()], ..Config::default() }
}

async fn request_from(client: &mut HttpClient, address: &str) -> Reply {
    client.request(&format!("GET /v1/things/one\nx-forwarded-for: {address}"), "").await
}

#[tokio::test]
async fn a_rate_limited_request_calls_no_service_and_keeps_its_connection() {
    let edge = Edge::limited(3, Config::default()).await;
    let mut client = edge.client().await;
    for _ in 0..3 {
        assert_eq!(client.request("POST /v1/things", r#"{"text": "one"}"#).await.status, 200);
    }
    retry_delay(&client.request("GET /v1/things/one", "").await, 20);
    // The body is drained without being parsed, so that its errors are not reported.
    for body in [vec![b'{'], vec![b' '; 2 * 1024 * 1024]] {
        retry_delay(&client.request("POST /v1/things", body).await, 20);
    }
    let head = client.request("HEAD /v1/things/one", "").await;
    assert_eq!((head.status, head.header("cache-control")), (429, "no-store"));
    assert_eq!(edge.backend.received().len(), 3);
    assert_eq!(client.request("GET /health", "").await.status, 200, "the connection is kept");

    let metrics = edge.metrics.render();
    for line in [
        r#"drystone_rate_limited_total{limit="request_address"} 4"#,
        r#"drystone_edge_requests_total{route="POST /v1/things",status="429"} 2"#,
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn a_rate_limited_client_that_expects_100_continue_gets_429_instead() {
    let edge = Edge::limited(1, Config::default()).await;
    let mut client = edge.client().await;
    assert_eq!(client.request("GET /v1/things/one", "").await.status, 200);
    client.send(b"POST /v1/things HTTP/1.1\r\nhost: edge\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n").await;
    let reply = client.receive(false).await;
    retry_delay(&reply, 60);
    assert_eq!(reply.header("connection"), "close");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn requests_without_route_are_counted_and_health_is_not() {
    let edge = Edge::limited(2, Config::default()).await;
    let mut client = edge.client().await;
    for _ in 0..10 {
        assert_eq!(client.request("GET /health", "").await.status, 200);
    }
    assert_eq!(client.request("GET /nowhere", "").await.status, 404);
    assert_eq!(client.request("OPTIONS /v1/things", "").await.status, 204);
    for request in ["GET /nowhere", "OPTIONS /v1/things", "POST /health", "GET /v1/things/one"] {
        retry_delay(&client.request(request, "").await, 30);
    }
    assert_eq!(client.request("GET /health", "").await.status, 200);
}

#[tokio::test]
async fn a_retry_after_the_given_delay_is_accepted() {
    let edge = Edge::limited(60, Config::default()).await;
    let (mut client, start) = (edge.client().await, Instant::now());
    let mut passed = 0;
    let wait = loop {
        let reply = client.request("GET /v1/things/one", "").await;
        if reply.status != 200 {
            break retry_delay(&reply, 1);
        }
        passed += 1;
    };
    assert!((60..=60 + start.elapsed().as_secs()).contains(&passed), "{passed} passed in {:?}", start.elapsed());
    tokio::time::sleep(wait).await;
    assert_eq!(client.request("GET /v1/things/one", "").await.status, 200);
}

#[tokio::test]
async fn clients_behind_one_proxy_are_counted_separately() {
    let edge = Edge::limited(2, trusting_localhost()).await;
    let mut proxy = edge.client().await;
    for address in ["192.0.2.7", "2001:db8:1:2::1", "2001:db8:1:3::1"] {
        for _ in 0..2 {
            assert_eq!(request_from(&mut proxy, address).await.status, 200, "{address}");
        }
    }
    // Another connection, another notation and another address of the same network share the count.
    let mut another = edge.client().await;
    for address in ["192.0.2.7", "::ffff:192.0.2.7", "6.6.6.6, 192.0.2.7", "2001:db8:1:2:ffff::9"] {
        retry_delay(&request_from(&mut another, address).await, 30);
    }
    assert_eq!(request_from(&mut another, "192.0.2.8").await.status, 200);
    assert_eq!(another.request("GET /v1/things/one", "").await.status, 200, "a request of the proxy itself");
}

#[tokio::test]
async fn forwarded_headers_of_an_untrusted_client_are_ignored() {
    let edge = Edge::limited(1, Config::default()).await;
    let mut client = edge.client().await;
    assert_eq!(request_from(&mut client, "192.0.2.7").await.status, 200);
    retry_delay(&request_from(&mut client, "192.0.2.8").await, 60);
}

#[tokio::test]
async fn without_a_limit_every_request_is_accepted() {
    let edge = Edge::limited(0, Config::default()).await;
    let mut client = edge.client().await;
    let many = client::write("GET /v1/things/one", b"").repeat(500);
    client.send(&many).await;
    for _ in 0..500 {
        assert_eq!(client.receive(false).await.status, 200);
    }
}

#[tokio::test]
async fn health_requests_have_a_limit_of_their_own() {
    let edge = Edge::limited(1, trusting_localhost()).await;
    let mut client = edge.client().await;
    assert_eq!(request_from(&mut client, "192.0.2.7").await.status, 200);
    retry_delay(&request_from(&mut client, "192.0.2.7").await, 60);
    let mut health =
        async |address: &str| client.request(&format!("GET /health\nx-forwarded-for: {address}"), "").await.status;
    let mut served = 0;
    while served < 700 && health("192.0.2.7").await == 200 {
        served += 1;
    }
    assert!((600..700).contains(&served), "{served}");
    assert_eq!(health("192.0.2.8").await, 200);
}
