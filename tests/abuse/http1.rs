//! HTTP/1.1 by hand.

use std::time::Duration;

use drystone_tests::{Mesh, attacks::raw};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::beside_load;

/// What each connection sends; the edge answers or closes it.
fn attacks() -> Vec<Vec<u8>> {
    let head = "GET /v1/users/me HTTP/1.1\r\nhost: edge\r\n";
    let many_headers = "x: y\r\n".repeat(5000);
    let chunks = "1\r\nx\r\n".repeat(20_000);
    vec![
        vec![0; 100_000],
        vec![b'\n'; 100_000],
        "GET ".repeat(50_000).into_bytes(),
        format!("GET /{} HTTP/1.1\r\nhost: edge\r\n\r\n", "x".repeat(100_000)).into_bytes(),
        format!("{head}x: {}\r\n\r\n", "y".repeat(100_000)).into_bytes(),
        format!("{head}{many_headers}\r\n").into_bytes(),
        format!("POST /v1/properties HTTP/1.1\r\nhost: edge\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
            .into_bytes(),
        format!(
            "POST /v1/properties HTTP/1.1\r\nhost: edge\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
            "x".repeat(100_000)
        )
        .into_bytes(),
        format!(
            "POST /v1/properties HTTP/1.1\r\nhost: edge\r\ntransfer-encoding: chunked\r\n\r\n1;{}\r\n",
            "e".repeat(100_000)
        )
        .into_bytes(),
        format!(
            "POST /v1/auth/login HTTP/1.1\r\nhost: edge\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
            "x".repeat(100_000)
        )
        .into_bytes(),
        format!("{head}\r\n").repeat(2000).into_bytes(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_harm_nobody() {
    let mesh = Mesh::start();
    let address = mesh.rest().address();
    beside_load(&mesh, async || {
        for attack in attacks() {
            let connections = (0..10).map(|_| {
                let attack = attack.clone();
                tokio::spawn(async move {
                    let (mut from, mut to) = raw::connect(address).await.into_split();
                    let writing = tokio::spawn(async move {
                        let _ = to.write_all(&attack).await;
                        to
                    });
                    // Until the edge closes the connection, or has no more to say.
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(Ok(1..)) = timeout(Duration::from_millis(500), from.read(&mut buffer)).await {}
                    drop(from);
                    writing.abort();
                })
            });
            for connection in connections.collect::<Vec<_>>() {
                connection.await.unwrap();
            }
        }
    })
    .await;
}
