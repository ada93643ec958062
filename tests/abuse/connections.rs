//! Connections that are held: idle, unfinished, or unread.

use drystone_tests::{Mesh, User};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::{
    beside_load,
    raw::{self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, INITIAL_WINDOW_SIZE},
};

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

/// The attack of one client that opens no window: each request asks for the largest page there is.
#[tokio::test]
async fn unread_pages_take_a_bounded_memory() {
    const MEMORY: u32 = 16 << 20;
    let mesh = Mesh::setup().set("edge.response_memory", &MEMORY.to_string()).set("edge.send_time", "10s").start();
    let (_, tokens) = User::signed_in(&mesh).await;
    // Each property has 8 KB of labels.
    let labels: serde_json::Map<_, _> =
        (0..32).map(|index| (format!("label-{index}"), json!("v".repeat(250)))).collect();
    for index in 0..50 {
        let body = json!({"displayName": format!("property {index}"), "labels": labels});
        mesh.rest().post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200);
    }
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
