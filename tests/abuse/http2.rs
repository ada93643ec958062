//! HTTP/2 by hand, against the edge.

use drystone_tests::{
    Mesh,
    attacks::{
        floods,
        large::many_properties,
        raw::{self, END_HEADERS, END_STREAM, HEADERS, Http2, INITIAL_WINDOW_SIZE, frame},
    },
};

use crate::beside_load;

async fn attacker(mesh: &Mesh) -> Http2<tokio::net::TcpStream> {
    Http2::connect(mesh.rest().address(), &[]).await
}

fn health() -> Vec<u8> {
    raw::headers(&raw::request("GET", "/health"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset_ends_only_its_own_connection() {
    let mesh = Mesh::start();
    beside_load(&mesh, async || {
        for _ in 0..5 {
            let sent = floods::rapid_reset(attacker(&mesh).await, &health()).await;
            assert!(sent < 100_000, "the connection was closed");
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_continuation_frames_ends_its_connection() {
    let mesh = Mesh::start();
    beside_load(&mesh, async || {
        for more in [raw::headers(&[("x", &"y".repeat(1000))]), Vec::new()] {
            floods::endless_headers(attacker(&mesh).await, &health(), &more).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_header_bomb_is_refused() {
    let mesh = Mesh::start();
    beside_load(&mesh, async || floods::header_bomb(attacker(&mesh).await, &health()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_control_frames_harm_nobody() {
    let mesh = Mesh::start();
    beside_load(&mesh, async || {
        for (name, bytes) in floods::control_frames() {
            println!("{name}: {} of 500", floods::repeat(attacker(&mesh).await, &bytes).await);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_data_frames_and_unfinished_streams_harm_nobody() {
    let mesh = Mesh::setup().set("edge.body_time", "2s").start();
    let login = [raw::request("POST", "/v1/auth/login").as_slice(), &[("content-type", "application/json")]].concat();
    beside_load(&mesh, async || {
        let answered = floods::empty_data(attacker(&mesh).await, &raw::headers(&login)).await;
        println!("{answered} of 100 streams were answered");
    })
    .await;
}

/// Window updates of one byte: each makes the server send a frame of one byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_window_increments_harm_nobody() {
    let mesh = Mesh::start();
    let tokens = many_properties(&mesh, 20).await;
    let authorization = format!("Bearer {}", tokens.access);
    let mut fields = raw::request("GET", "/v1/properties?pageSize=200").to_vec();
    fields.push(("authorization", &authorization));
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &raw::headers(&fields));
    beside_load(&mesh, async || {
        let attacker = Http2::connect(mesh.rest().address(), &[(INITIAL_WINDOW_SIZE, 0)]).await;
        let received = floods::tiny_increments(attacker, &request).await;
        println!("{received} bytes came one by one");
    })
    .await;
}
