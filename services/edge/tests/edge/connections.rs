//! Connections: timeouts, invalid input, HTTP/2, and shutdown.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use drystone_edge::Config;
use drystone_mesh::config::ConfigDuration;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    Edge,
    backend::FakeBackend,
    client::{self, TIMEOUT},
};

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let edge = Edge::echo().await;
    let mut client = edge.client().await;
    let pipelined = [client::write("GET /v1/things/one", b""), client::write("GET /v1/things/two", b"")].concat();
    client.send(&pipelined).await;
    assert_eq!(client.receive(false).await.json()["text"], "one");
    assert_eq!(client.receive(false).await.json()["text"], "two");
}

#[tokio::test]
async fn http2_is_served_without_tls() {
    let edge = Edge::echo().await;
    let stream = TokioIo::new(TcpStream::connect(edge.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let mut send = async |method: &str, path: &str, body: Vec<u8>| {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://edge{path}"))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", client::TOKEN))
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        (head.status.as_u16(), head.headers, body.collect().await.unwrap().to_bytes())
    };
    let (status, _, body) = send("POST", "/v1/things", br#"{"text": "two"}"#.to_vec()).await;
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&body).contains(r#""text":"two""#));

    let (status, headers, body) = send("HEAD", "/v1/things/one", vec![]).await;
    assert!(status == 200 && body.is_empty() && headers["content-length"] != "0");
    for (body, status) in [(vec![b' '; 2 * 1024 * 1024], 413), (vec![b' '; 20 * 1024 * 1024], 413), (vec![0xff], 400)] {
        assert_eq!(send("POST", "/v1/things", body).await.0, status);
    }
    assert_eq!(send("GET", "/v1/things", vec![]).await.0, 200);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_or_an_error() {
    let edge = Edge::echo().await;
    let mut client = edge.client().await;
    let head = "POST /v1/things HTTP/1.1\r\nhost: edge\r\nexpect: 100-continue\r\ncontent-type: application/json\r\n";
    client.send(format!("{head}content-length: 5000000\r\n\r\n").as_bytes()).await;
    let reply = client.receive(false).await;
    assert_eq!((reply.status, reply.header("connection")), (413, "close"));
    assert!(client.is_closed().await);

    let mut client = edge.client().await;
    client.send(format!("{head}content-length: 2\r\n\r\n").as_bytes()).await;
    assert_eq!(client.receive(true).await.status, 100);
    client.send(b"{}").await;
    assert_eq!(client.receive(false).await.status, 200);
}

#[tokio::test]
async fn a_body_beyond_the_drain_limit_closes_its_connection_after_a_response() {
    let config = Config { drain_limit: 2 * 1024 * 1024, ..Config::default() };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    let mut client = edge.client().await;
    client.send(b"POST /v1/things HTTP/1.1\r\nhost: edge\r\ncontent-length: 99999999\r\n\r\n").await;
    client.send(&vec![b' '; 2 * 1024 * 1024 + 1]).await;
    let reply = client.receive(false).await;
    assert_eq!((reply.status, reply.header("connection")), (413, "close"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_slow_body_is_refused_with_408() {
    let config = Config { body_time: ConfigDuration::millis(50), ..Config::default() };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    let mut client = edge.client().await;
    client.send(b"POST /v1/things HTTP/1.1\r\nhost: edge\r\ncontent-length: 10\r\n\r\n{").await;
    let reply = client.receive(false).await;
    assert_eq!((reply.status, reply.header("connection")), (408, "close"));
    assert!(client.is_closed().await && edge.backend.received().is_empty());
}

#[tokio::test]
async fn an_invalid_chunk_is_refused() {
    let edge = Edge::echo().await;
    let mut client = edge.client().await;
    client.send(b"POST /v1/things HTTP/1.1\r\nhost: edge\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").await;
    let reply = client.receive(false).await;
    assert_eq!((reply.status, reply.reason().as_str()), (400, "MALFORMED_BODY"));
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let config = Config { request_time: ConfigDuration::millis(50), ..Config::default() };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    for start in ["", "P", "PRI * HTTP/2.0\r\n", "GET /v1/things HTTP/1.1\r\nx: "] {
        let mut client = edge.client().await;
        client.send(start.as_bytes()).await;
        assert!(client.is_closed().await, "{start}");
    }
    // After the first request this timeout no longer applies.
    let mut client = edge.client().await;
    assert_eq!(client.request("GET /health", "").await.status, 200);
    let mut other = edge.client().await;
    assert!(other.is_closed().await);
    assert_eq!(client.request("GET /health", "").await.status, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let config = Config { idle_time: ConfigDuration::millis(50), ..Config::default() };
    let edge = Edge::with_backend(FakeBackend::echo(), config).await;
    let mut client = edge.client().await;
    assert_eq!(client.request("GET /health", "").await.status, 200);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_stop_drains_running_requests_and_accepts_no_more() {
    let (slow, called, resume) = FakeBackend::blocking();
    let edge = Edge::with_backend(slow, Config::default()).await;
    let mut idle = edge.client().await;
    assert_eq!(idle.request("GET /health", "").await.status, 200);
    assert!(edge.health.is_ready());
    let mut busy = edge.client().await;
    busy.send(&client::write("GET /v1/things/one", b"")).await;
    called.notified().await;

    edge.stop.cancel();
    assert!(idle.is_closed().await);
    resume.notify_one();
    assert_eq!(busy.receive(false).await.json()["text"], "one");
    let (address, health) = (edge.address, edge.health.clone());
    timeout(TIMEOUT, edge.stop()).await.unwrap();
    assert!(!health.is_ready());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_serves_clients_that_have_just_connected() {
    let edge = Edge::echo().await;
    let mut accepted = edge.client().await;
    // The edge runs on this thread: it cannot accept this connection before the stop.
    let waiting = std::net::TcpStream::connect(edge.address).unwrap();
    edge.stop.cancel();
    waiting.set_nonblocking(true).unwrap();
    let mut waiting = client::HttpClient::from_stream(TcpStream::from_std(waiting).unwrap());
    timeout(TIMEOUT, async { while TcpStream::connect(edge.address).await.is_ok() {} }).await.unwrap();
    for client in [&mut accepted, &mut waiting] {
        assert_eq!(client.request("GET /v1/things/one", "").await.json()["text"], "one");
    }
    timeout(TIMEOUT, edge.stop()).await.unwrap();
}

#[tokio::test]
async fn a_stop_cancels_requests_at_its_timeout() {
    let never = FakeBackend::new(Arc::new(|_| Box::pin(std::future::pending())));
    let config = Config { stop_time: ConfigDuration::millis(20), ..Config::default() };
    let edge = Edge::with_backend(never, config).await;
    let mut busy = edge.client().await;
    busy.send(&client::write("GET /v1/things/one", b"")).await;
    timeout(TIMEOUT, edge.stop()).await.unwrap();
}

#[tokio::test]
async fn a_grpc_server_over_a_socket_is_called() {
    let backend = FakeBackend::echo();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = backend.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let server = server.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let mut server = server.clone();
                async move {
                    use tonic::codegen::Service as _;
                    Ok::<_, Infallible>(server.call(request.map(tonic::body::Body::new)).await.unwrap())
                }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    let channel = tonic::transport::Endpoint::try_from(format!("http://{address}")).unwrap().connect_lazy();
    let edge = Edge::start(crate::fixture_contract(), channel, backend, Config::default()).await;
    assert_eq!(edge.received("GET /v1/things/one", "").await, serde_json::json!({"text": "one"}));

    let unreachable = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let edge = Edge::start(crate::fixture_contract(), unreachable, FakeBackend::echo(), Config::default()).await;
    let reply = edge.request("GET /v1/things/one", "").await;
    assert_eq!((reply.status, reply.reason().as_str(), reply.header("retry-after")), (503, "UNAVAILABLE", "1"));
}
