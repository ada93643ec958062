//! How often one client may ask.

use std::time::{Duration, Instant};

use drystone_edge::Config;

use crate::{
    Edge,
    client::{self, Client, Reply},
};

/// A refusal that says when to come back: at most so many seconds from now.
#[track_caller]
fn says_when(reply: &Reply, most: u64) -> Duration {
    assert_eq!((reply.status, reply.reason().as_str()), (429, "RATE_LIMITED"), "{}", reply.text());
    let seconds: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=most).contains(&seconds), "{seconds}");
    let exactly = reply.detail("RetryInfo")["retryDelay"].as_str().unwrap().to_owned();
    let exactly = Duration::from_secs_f64(exactly.trim_end_matches('s').parse().unwrap());
    assert!(exactly <= Duration::from_secs(seconds), "{exactly:?}");
    exactly
}

fn believing_this_machine() -> Config {
    Config { trusted_proxies: vec!["127.0.0.1".parse().unwrap()], ..Config::default() }
}

async fn ask_from(client: &mut Client, address: &str) -> Reply {
    client.ask(&format!("GET /v1/things/one\nx-forwarded-for: {address}"), "").await
}

#[tokio::test]
async fn who_asks_too_often_is_turned_away_before_anything_is_called_and_keeps_the_connection() {
    let edge = Edge::limited(3, Config::default()).await;
    let mut client = edge.client().await;
    for _ in 0..3 {
        assert_eq!(client.ask("POST /v1/things", r#"{"text": "one"}"#).await.status, 200);
    }
    says_when(&client.ask("GET /v1/things/one", "").await, 20);
    // What it sends is not read for anything but its end, so that its faults go unnoticed.
    for body in [vec![b'{'], vec![b' '; 2 * 1024 * 1024]] {
        says_when(&client.ask("POST /v1/things", body).await, 20);
    }
    let head = client.ask("HEAD /v1/things/one", "").await;
    assert_eq!((head.status, head.header("cache-control")), (429, "no-store"));
    assert_eq!(edge.backend.received().len(), 3);
    assert_eq!(client.ask("GET /health", "").await.status, 200, "the connection goes on");

    let metrics = edge.metrics.render();
    for line in [
        r#"drystone_rate_limited_total{limit="request_address"} 4"#,
        r#"drystone_edge_requests_total{route="POST /v1/things",status="429"} 2"#,
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn who_asks_leave_to_send_a_body_is_told_before_it_sends() {
    let edge = Edge::limited(1, Config::default()).await;
    let mut client = edge.client().await;
    assert_eq!(client.ask("GET /v1/things/one", "").await.status, 200);
    client.send(b"POST /v1/things HTTP/1.1\r\nhost: edge\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n").await;
    let reply = client.receive(false).await;
    says_when(&reply, 60);
    assert_eq!(reply.header("connection"), "close");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn what_nothing_serves_counts_and_health_does_not() {
    let edge = Edge::limited(2, Config::default()).await;
    let mut client = edge.client().await;
    for _ in 0..10 {
        assert_eq!(client.ask("GET /health", "").await.status, 200);
    }
    assert_eq!(client.ask("GET /nowhere", "").await.status, 404);
    assert_eq!(client.ask("OPTIONS /v1/things", "").await.status, 204);
    for request in ["GET /nowhere", "OPTIONS /v1/things", "POST /health", "GET /v1/things/one"] {
        says_when(&client.ask(request, "").await, 30);
    }
    assert_eq!(client.ask("GET /health", "").await.status, 200);
}

#[tokio::test]
async fn who_comes_back_when_it_is_told_to_passes() {
    let edge = Edge::limited(60, Config::default()).await;
    let (mut client, start) = (edge.client().await, Instant::now());
    let mut passed = 0;
    let wait = loop {
        let reply = client.ask("GET /v1/things/one", "").await;
        if reply.status != 200 {
            break says_when(&reply, 1);
        }
        passed += 1;
    };
    assert!((60..=60 + start.elapsed().as_secs()).contains(&passed), "{passed} passed in {:?}", start.elapsed());
    tokio::time::sleep(wait).await;
    assert_eq!(client.ask("GET /v1/things/one", "").await.status, 200);
}

#[tokio::test]
async fn each_address_has_its_own_count_however_many_are_behind_one_proxy() {
    let edge = Edge::limited(2, believing_this_machine()).await;
    let mut proxy = edge.client().await;
    for address in ["192.0.2.7", "2001:db8:1:2::1", "2001:db8:1:3::1"] {
        for _ in 0..2 {
            assert_eq!(ask_from(&mut proxy, address).await.status, 200, "{address}");
        }
    }
    // Another connection, another spelling, and another address of the same customer count together with them.
    let mut another = edge.client().await;
    for address in ["192.0.2.7", "::ffff:192.0.2.7", "6.6.6.6, 192.0.2.7", "2001:db8:1:2:ffff::9"] {
        says_when(&ask_from(&mut another, address).await, 30);
    }
    assert_eq!(ask_from(&mut another, "192.0.2.8").await.status, 200);
    assert_eq!(another.ask("GET /v1/things/one", "").await.status, 200, "the proxy asks for itself");
}

#[tokio::test]
async fn what_a_client_says_of_itself_gives_it_no_other_count() {
    let edge = Edge::limited(1, Config::default()).await;
    let mut client = edge.client().await;
    assert_eq!(ask_from(&mut client, "192.0.2.7").await.status, 200);
    says_when(&ask_from(&mut client, "192.0.2.8").await, 60);
}

#[tokio::test]
async fn without_a_limit_nobody_is_turned_away() {
    let edge = Edge::limited(0, Config::default()).await;
    let mut client = edge.client().await;
    let many = client::write("GET /v1/things/one", b"").repeat(500);
    client.send(&many).await;
    for _ in 0..500 {
        assert_eq!(client.receive(false).await.status, 200);
    }
}
