//! Connections that are held: idle, unfinished, or unread.

use drystone_tests::{
    Mesh,
    attacks::{
        large::many_properties,
        raw::{self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, INITIAL_WINDOW_SIZE},
    },
    wait,
};
use tokio::io::AsyncWriteExt;

use crate::beside_load;

#[tokio::test]
async fn idle_http2_connections_keep_nobody_out() {
    let mesh = Mesh::setup().set("edge.connections", "20").start();
    beside_load(&mesh, async || {
        let mut held = Vec::new();
        for _ in 0..200 {
            held.push(Http2::connect(mesh.rest().address(), &[]).await);
        }
    })
    .await;
}

#[tokio::test]
async fn unfinished_heads_keep_nobody_out() {
    let mesh = Mesh::setup().set("edge.connections", "50").start();
    beside_load(&mesh, async || {
        let mut held = Vec::new();
        for _ in 0..300 {
            let mut stream = raw::connect(mesh.rest().address()).await;
            let start = format!("GET /v1/users/me HTTP/1.1\r\nhost: edge\r\nx: {}", "x".repeat(15_000));
            stream.write_all(start.as_bytes()).await.unwrap();
            held.push(stream);
        }
    })
    .await;
}

/// Requests with large heads whose bodies never end, over HTTP/2: 20 connections with 100 each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_of_requests_in_progress_take_a_bounded_memory() {
    const MEMORY: u32 = 8 << 20;
    const CONNECTIONS: u32 = 20;
    let setup = Mesh::setup().set("edge.request_memory", &MEMORY.to_string()).set("edge.body_time", "5s");
    let mesh = setup.start();
    let large = "x".repeat(15_000);
    let mut fields = raw::request("POST", "/v1/auth/login").to_vec();
    fields.extend([("content-type", "application/json"), ("x-large", &large)]);
    let block = raw::headers(&fields);
    beside_load(&mesh, async || {
        let mut held = Vec::new();
        let mut most = 0.0_f64;
        for _ in 0..CONNECTIONS {
            let mut attacker = Http2::connect(mesh.rest().address(), &[]).await;
            for stream in 0..100 {
                attacker.send(&frame_of(&block, 1 + 2 * stream)).await.unwrap();
            }
            most = most.max(mesh.metrics().await.sum("drystone_edge_request_bytes", &[]));
            held.push(attacker);
        }
        assert!(most <= f64::from(MEMORY / 4), "{most}");
        assert!(most >= 1e6, "the attack has an effect: {most}");
        // What is refused is answered at once.
        let (kind, ..) = held.last_mut().unwrap().receive_kind(HEADERS).await;
        assert_eq!(kind, HEADERS);
    })
    .await;
    wait::until("nothing is held any more", async || {
        (mesh.metrics().await.sum("drystone_edge_request_bytes", &[]) < 1000.0).then_some(())
    })
    .await;
}

fn frame_of(block: &[u8], stream: u32) -> Vec<u8> {
    raw::frame(HEADERS, END_HEADERS, stream, block)
}

/// The attack of one client that opens no window: each request asks for the largest page there is.
#[tokio::test]
async fn unread_pages_take_a_bounded_memory() {
    const MEMORY: u32 = 16 << 20;
    let mesh = Mesh::setup().set("edge.response_memory", &MEMORY.to_string()).set("edge.send_time", "10s").start();
    let tokens = many_properties(&mesh, 50).await;
    let authorization = format!("Bearer {}", tokens.access);
    beside_load(&mesh, async || {
        for _ in 0..2 {
            let mut attacker = Http2::connect(mesh.rest().address(), &[(INITIAL_WINDOW_SIZE, 0)]).await;
            for index in 0..100 {
                let mut fields = raw::request("GET", "/v1/properties?pageSize=200").to_vec();
                fields.push(("authorization", &authorization));
                let block = raw::headers(&fields);
                attacker.send(&raw::frame(HEADERS, END_STREAM | END_HEADERS, 1 + 2 * index, &block)).await.unwrap();
            }
            // All are answered, and each answer is either unread or refused, unless the send timeout closes the connection first.
            let (mut answered, mut is_open) = (0, true);
            while answered < 100 {
                match attacker.receive().await {
                    Some((HEADERS, ..)) => answered += 1,
                    Some((GOAWAY, ..)) | None => {
                        is_open = false;
                        break;
                    }
                    Some(_) => {}
                }
            }
            let unsent = mesh.metrics().await.sum("drystone_edge_unsent_bytes", &[]);
            assert!(unsent <= f64::from(MEMORY / 4 + 100 * 4096), "{unsent}");
            assert!(unsent > 0.0 || !is_open, "the attack has an effect");
            // The client takes nothing within the send timeout.
            attacker.end().await;
        }
    })
    .await;
    let unsent = mesh.metrics().await.sum("drystone_edge_unsent_bytes", &[]);
    assert!(unsent < 1_000_000.0, "{unsent}");
}

/// A held connection to the admin port does not keep probes out.
#[tokio::test]
async fn held_connections_do_not_block_the_admin_port() {
    let mesh = Mesh::start();
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(raw::connect(mesh.admin_address()).await);
    }
    assert_eq!(mesh.admin("/health").await.status, 200);
}
