//! gRPC by hand, against the mesh's own ports, by a workload with a valid certificate.

use drystone_tests::{Mesh, User, certs::Certificates};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    beside_load,
    raw::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, PING, RST_STREAM, SETTINGS, frame},
};

const GET_ME: &str = "/drystone.user.v1.UserService/GetMe";

/// A name, a header block, and the data frames.
type MalformedCall = (&'static str, Vec<u8>, Vec<Vec<u8>>);

/// The fields of a call.
fn call<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", GET_ME),
        (":authority", "user"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    [&fields, more].concat()
}

async fn attacker(mesh: &Mesh) -> Http2<tokio_rustls::client::TlsStream<TcpStream>> {
    Http2::connect_mesh(mesh.grpc_address("user"), mesh.certificates(), "edge", "user").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_calls_of_a_workload_harm_nobody() {
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let authorization = format!("Bearer {}", tokens.access);
    let huge = "x".repeat(10_000);
    let authorized = [("authorization", &*authorization)];
    let calls: Vec<MalformedCall> = vec![
        ("huge metadata", raw::headers(&call(&[("x-huge", &huge), ("x-huge", &huge), ("x-huge", &huge)])), vec![]),
        ("a length of 4 GiB", raw::headers(&call(&authorized)), vec![vec![0, 0xff, 0xff, 0xff, 0xff]]),
        ("a length that lies", raw::headers(&call(&authorized)), vec![vec![0, 0, 0, 0, 9, 1]]),
        ("several messages", raw::headers(&call(&authorized)), vec![vec![0; 5], vec![0; 5]]),
        ("a compressed message", raw::headers(&call(&authorized)), vec![vec![1, 0, 0, 0, 1, 0]]),
        (
            "a gzip bomb",
            raw::headers(&call(&[authorized[0], ("grpc-encoding", "gzip")])),
            vec![
                [
                    &[1, 0, 0, 0, 20][..],
                    &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0],
                ]
                .concat(),
            ],
        ),
        (
            "a field of 2 GiB",
            raw::headers(&call(&authorized)),
            vec![vec![0, 0, 0, 0, 6, 0x0a, 0xff, 0xff, 0xff, 0xff, 0x07]],
        ),
        ("no message", raw::headers(&call(&authorized)), vec![vec![]]),
        ("denied, with a body", raw::headers(&call(&[])), vec![vec![b'x'; 10_000]]),
    ];
    beside_load(&mesh, async || {
        for (name, block, messages) in calls {
            let mut attacker = attacker(&mesh).await;
            for number in 0..200 {
                let stream = 1 + 2 * number;
                let mut bytes = frame(HEADERS, END_HEADERS, stream, &block);
                let last = messages.len().saturating_sub(1);
                for (index, message) in messages.iter().enumerate() {
                    bytes.extend(frame(DATA, if index == last { END_STREAM } else { 0 }, stream, message));
                }
                if attacker.send(&bytes).await.is_err() {
                    println!("{name}: closed after {number}");
                    break;
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_a_workload_end_only_its_own_connection() {
    let mesh = Mesh::start();
    let block = raw::headers(&call(&[]));
    beside_load(&mesh, async || {
        let mut reset = attacker(&mesh).await;
        let sent = reset
            .flood(100_000, |number| {
                let stream = 1 + 2 * number;
                [frame(HEADERS, END_HEADERS, stream, &block), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())]
                    .concat()
            })
            .await;
        println!("rapid reset: {sent}");
        let mut continuation = attacker(&mesh).await;
        continuation.send(&frame(HEADERS, 0, 1, &block)).await.unwrap();
        let more = raw::headers(&[("x", &"y".repeat(1000))]);
        let sent = continuation.flood(100_000, |_| frame(CONTINUATION, 0, 1, &more)).await;
        assert!(sent < 100_000, "the connection was closed");
        for flood in [frame(PING, 0, 0, b"12345678"), frame(SETTINGS, 0, 0, b"")] {
            let batch = flood.repeat(100);
            attacker(&mesh).await.flood(500, |_| batch.clone()).await;
        }
    })
    .await;
}

/// Calls whose request never ends hold permits of the server until their deadline.
#[tokio::test]
async fn calls_that_are_never_finished_harm_nobody() {
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let authorization = format!("Bearer {}", tokens.access);
    let block = raw::headers(&call(&[("authorization", &authorization), ("grpc-timeout", "3S")]));
    beside_load(&mesh, async || {
        let mut attacker = attacker(&mesh).await;
        for number in 0..500 {
            attacker.send(&frame(HEADERS, END_HEADERS, 1 + 2 * number, &block)).await.unwrap();
        }
        let mut answered = 0;
        while answered < 500 {
            match attacker.receive().await {
                Some((HEADERS, ..)) => answered += 1,
                Some(_) => {}
                None => break,
            }
        }
        assert_eq!(answered, 500, "each at its deadline");
    })
    .await;
}

/// TLS that is never finished, and certificates that nobody asked for.
#[tokio::test]
async fn unfinished_handshakes_harm_nobody() {
    let mesh = Mesh::start();
    beside_load(&mesh, async || {
        let mut held = Vec::new();
        for number in 0..400 {
            let mut stream = TcpStream::connect(mesh.grpc_address("user")).await.unwrap();
            // Nothing, the beginning of a ClientHello, or a record that never ends.
            let start: &[u8] = [&b""[..], &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc], &[22, 3, 1, 0x3f, 0xff]][number % 3];
            stream.write_all(start).await.unwrap();
            held.push(stream);
        }
    })
    .await;
}

/// A chain of 200 certificates.
#[tokio::test]
async fn a_huge_certificate_chain_is_refused() {
    let mesh = Mesh::start();
    let certificates: &Certificates = mesh.certificates();
    beside_load(&mesh, async || {
        for _ in 0..20 {
            let (leaf, _) = certificates.of("edge").into_parts();
            let credentials = certificates.of("edge").extended(std::iter::repeat_n(leaf[0].clone(), 200));
            let config = certificates.client_config(Some(credentials), &[&rustls::version::TLS13]);
            let stream = TcpStream::connect(mesh.grpc_address("user")).await.unwrap();
            let connected = tokio_rustls::TlsConnector::from(config).connect("user".try_into().unwrap(), stream).await;
            let Ok(mut stream) = connected else { continue };
            // Under TLS 1.3 the client sees the refusal when it reads.
            let mut http2 = Http2 { stream: &mut stream };
            assert_eq!(http2.receive().await, None);
        }
    })
    .await;
}
