//! TLS by hand, against the mesh's own ports.

use std::time::Duration;

use drystone_tests::{Mesh, attacks::raw::Http2, certs::Certificates};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::beside_load;

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

/// What TLS 1.2 would take for a renegotiation, and requests for new keys without end: the first ends its connection, the second costs
/// the one that it concerns alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renegotiation_is_refused_and_key_updates_harm_nobody() {
    let mesh = Mesh::start();
    let certificates = mesh.certificates();
    beside_load(&mesh, async || {
        let connect = async || {
            let config = certificates.client_config(Some(certificates.of("edge")), &[&rustls::version::TLS13]);
            let stream = TcpStream::connect(mesh.grpc_address("user")).await.unwrap();
            tokio_rustls::TlsConnector::from(config).connect("user".try_into().unwrap(), stream).await.unwrap()
        };
        let (mut stream, _) = connect().await.into_inner();
        // A record with the beginning of a ClientHello, not encrypted.
        stream.write_all(&[22, 3, 3, 0, 6, 1, 0, 0, 2, 3, 3]).await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.expect("the connection ends");
        println!("after a ClientHello: {} bytes, {ended:?}", rest.len());

        let mut flooding = connect().await;
        let mut sent = 0;
        while sent < 20_000 {
            if flooding.get_mut().1.refresh_traffic_keys().is_err() || flooding.flush().await.is_err() {
                break;
            }
            sent += 1;
        }
        println!("{sent} requests for new keys");
    })
    .await;
}
