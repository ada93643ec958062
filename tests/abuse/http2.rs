//! HTTP/2 by hand, against the edge.

use drystone_tests::Mesh;

use crate::{
    beside_load,
    raw::{
        self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, INITIAL_WINDOW_SIZE, PING, PRIORITY,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
    },
};

/// The error code ENHANCE_YOUR_CALM (RFC 9113, section 7).
const ENHANCE_YOUR_CALM: u32 = 11;

fn get(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &raw::headers(&raw::request("GET", "/health")))
}

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset_ends_only_its_own_connection() {
    let mesh = Mesh::start();
    beside_load(&mesh, async || {
        for _ in 0..5 {
            let mut attacker = Http2::connect(mesh.rest().address(), &[]).await;
            let sent = attacker
                .flood(100_000, |number| {
                    let stream = 1 + 2 * number;
                    [get(stream, END_STREAM | END_HEADERS), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
                })
                .await;
            assert!(sent < 100_000, "the connection was closed");
        }
    })
    .await;
}

/// CVE-2024-27316 and others.
#[tokio::test]
async fn a_flood_of_continuation_frames_ends_its_connection() {
    let mesh = Mesh::start();
    beside_load(&mesh, async || {
        for block in [raw::headers(&[("x", &"y".repeat(1000))]), Vec::new()] {
            let mut attacker = Http2::connect(mesh.rest().address(), &[]).await;
            attacker.send(&get(1, 0)).await.unwrap();
            let sent = attacker.flood(100_000, |_| frame(CONTINUATION, 0, 1, &block)).await;
            assert!(sent < 100_000, "the connection was closed");
        }
    })
    .await;
}

/// A header in the dynamic table, referenced with one byte each.
#[tokio::test]
async fn a_header_bomb_is_refused() {
    let mesh = Mesh::start();
    beside_load(&mesh, async || {
        let mut attacker = Http2::connect(mesh.rest().address(), &[]).await;
        for stream in 0..50 {
            let mut block = raw::headers(&raw::request("GET", "/health"));
            // With incremental indexing (RFC 7541, section 6.2.1), then 12,000 references to the entry.
            block.push(0x40);
            for text in ["x", &"y".repeat(3000)] {
                raw::length(&mut block, text.len());
                block.extend_from_slice(text.as_bytes());
            }
            block.resize(block.len() + 12_000, 0x80 | 0x3e);
            if attacker.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1 + 2 * stream, &block)).await.is_err() {
                break;
            }
        }
        assert_eq!(attacker.end().await, Some(ENHANCE_YOUR_CALM));
    })
    .await;
}

/// Frames that a server has to answer or to process, from a client that reads nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_control_frames_harm_nobody() {
    let mesh = Mesh::start();
    beside_load(&mesh, async || {
        let settings = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &65_535_u32.to_be_bytes()[..]].concat();
        let floods: [(&str, Vec<u8>); 5] = [
            ("SETTINGS", frame(SETTINGS, 0, 0, &settings)),
            ("PING", frame(PING, 0, 0, b"12345678")),
            ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
            ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
            ("unknown", frame(0xbe, 0, 0, &[0; 100])),
        ];
        for (name, bytes) in floods {
            let mut attacker = Http2::connect(mesh.rest().address(), &[]).await;
            let batch = bytes.repeat(100);
            let sent = attacker.flood(1000, |_| batch.clone()).await;
            println!("{name}: {sent} of 1000 batches");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_data_frames_and_unfinished_streams_harm_nobody() {
    let mesh = Mesh::setup().set("edge.body_time", "2s").start();
    beside_load(&mesh, async || {
        let mut attacker = Http2::connect(mesh.rest().address(), &[]).await;
        let post = raw::headers(
            &[raw::request("POST", "/v1/auth/login").as_slice(), &[("content-type", "application/json")]].concat(),
        );
        // 100 streams with a request each that never ends.
        for stream in 0..100 {
            attacker.send(&frame(HEADERS, END_HEADERS, 1 + 2 * stream, &post)).await.unwrap();
        }
        attacker.flood(100_000, |number| frame(DATA, 0, 1 + 2 * (number % 100), b"")).await;
        let mut answered = 0;
        while answered < 100 {
            match attacker.receive().await {
                Some((HEADERS, ..)) => answered += 1,
                Some(_) => {}
                None => break,
            }
        }
        println!("{answered} of 100 streams were answered");
    })
    .await;
}

/// Window updates of one byte: each makes the server send a frame of one byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_window_increments_harm_nobody() {
    let mesh = Mesh::start();
    beside_load(&mesh, async || {
        let mut attacker = Http2::connect(mesh.rest().address(), &[(INITIAL_WINDOW_SIZE, 0)]).await;
        for stream in 0..100 {
            attacker.send(&get(1 + 2 * stream, END_STREAM | END_HEADERS)).await.unwrap();
        }
        attacker.flood(20_000, |number| frame(WINDOW_UPDATE, 0, 1 + 2 * (number % 100), &1_u32.to_be_bytes())).await;
    })
    .await;
}
