//! The requirements of RFC 9110, 9112 and 9113 for every request.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{
    Edge,
    client::{HttpClient, Reply},
};

/// Sends these bytes, and returns the response and the connection.
async fn send_raw(edge: &Edge, bytes: impl AsRef<[u8]>) -> (Reply, HttpClient) {
    let mut client = edge.client().await;
    client.send(bytes.as_ref()).await;
    (client.receive(false).await, client)
}

/// Whether the connection serves another request.
async fn is_kept_alive(client: &mut HttpClient) -> bool {
    client.request("GET /v1/things/one", "").await.status == 200
}

#[tokio::test]
async fn http1_requests_without_one_valid_host_are_refused() {
    let edge = Edge::echo().await;
    for hosts in [
        "",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nHost: b\r\n",
        "host:\r\n",
        "host: a b\r\n",
        "host: a/b\r\n",
        "host: u@a\r\n",
        "host: a:x\r\n",
        "host: \u{e9}\r\n",
    ] {
        for (method, path, body) in
            [("GET", "/v1/things/one", ""), ("GET", "/health", ""), ("POST", "/v1/things", "{}")]
        {
            let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
            let json = "content-type: application/json\r\n";
            let request = format!("{method} {path} HTTP/1.1\r\n{hosts}{length}{json}\r\n{body}");
            let (reply, mut client) = send_raw(&edge, request).await;
            assert_eq!((reply.status, reply.reason().as_str()), (400, "INVALID_REQUEST"), "{hosts} {path}");
            assert_eq!((reply.violation().0.as_str(), reply.header("connection")), ("host", ""), "{hosts} {path}");
            assert!(is_kept_alive(&mut client).await, "{hosts} {path}");
        }
    }
    let received = edge.backend.received();
    assert!(received.iter().all(|received| received.path.ends_with("/Get")), "nothing else reached the backend");
    for host in ["edge", "edge:8080", "127.0.0.1:1", "[::1]:8080"] {
        let (reply, _) = send_raw(&edge, format!("GET /v1/things/one HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(reply.status, 200, "{host}");
    }
}

#[tokio::test]
async fn http_1_0_needs_no_host_and_closes_its_connection() {
    let edge = Edge::echo().await;
    let (reply, mut client) = send_raw(&edge, "GET /v1/things/one HTTP/1.0\r\n\r\n").await;
    assert!(reply.status == 200 && client.is_closed().await);
    let (reply, _) = send_raw(&edge, "GET /v1/things/one HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n").await;
    assert_eq!(reply.status, 400);
    // HTTP/1.0 has no expectations: the body follows at once.
    let head = "POST /v1/things HTTP/1.0\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n";
    let (reply, _) = send_raw(&edge, format!("{head}content-length: 2\r\n\r\n{{}}")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn request_targets_of_every_form_are_handled() {
    let edge = Edge::echo().await;
    for (line, status) in [
        ("GET http://other:1/v1/things/one HTTP/1.1\r\nhost: edge", 200),
        ("GET https://other/v1/things/one HTTP/1.1\r\nhost: edge", 200),
        ("GET http://other/v1/things/one HTTP/1.1\r\nhost: a b", 400),
        ("GET http://other/v1/things/one HTTP/1.1", 400),
        ("GET http://user@other/v1/things/one HTTP/1.1\r\nhost: edge", 400),
        ("GET ftp://other/v1/things/one HTTP/1.1\r\nhost: edge", 400),
        ("GET edge:80 HTTP/1.1\r\nhost: edge", 400),
        ("GET * HTTP/1.1\r\nhost: edge", 400),
        ("OPTIONS * HTTP/1.1\r\nhost: edge", 204),
        ("GET v1/things HTTP/1.1\r\nhost: edge", 400),
        ("TRACE /v1/things/one HTTP/1.1\r\nhost: edge", 405),
    ] {
        let (reply, _) = send_raw(&edge, format!("{line}\r\n\r\n")).await;
        assert_eq!(reply.status, status, "{line}: {}", reply.text());
    }
    let (reply, mut client) = send_raw(&edge, "OPTIONS * HTTP/1.1\r\nhost: edge\r\n\r\n").await;
    assert_eq!(reply.header("allow"), "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, REPORT");
    assert!(reply.header("content-length").is_empty() && is_kept_alive(&mut client).await);
    let (reply, mut client) = send_raw(&edge, "CONNECT other:443 HTTP/1.1\r\nhost: other:443\r\n\r\n").await;
    assert_eq!((reply.status, reply.header("connection")), (501, "close"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn http2_requests_need_one_host() {
    let edge = Edge::echo().await;
    let stream = TokioIo::new(TcpStream::connect(edge.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let mut send = async |uri: &str, hosts: &[&str]| {
        let mut request = http::Request::builder().uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        (head.status.as_u16(), body.collect().await.unwrap().to_bytes())
    };
    let with_authority = "http://edge/v1/things/one";
    assert_eq!(send(with_authority, &[]).await.0, 200);
    assert_eq!(send(with_authority, &["EDGE:80"]).await.0, 200);
    for hosts in [&["other"][..], &["edge", "edge"], &["a b"], &[""]] {
        let (status, body) = send(with_authority, hosts).await;
        assert!(status == 400 && String::from_utf8_lossy(&body).contains("INVALID_REQUEST"), "{hosts:?}");
    }
    assert_eq!(send("http://user@edge/v1/things/one", &[]).await.0, 400);
    assert_eq!(send("/v1/things/one", &["edge"]).await.0, 200);
    assert_eq!(send("/v1/things/one", &[]).await.0, 400);
    assert_eq!(send(with_authority, &[]).await.0, 200, "the connection is kept");
}

#[tokio::test]
async fn unknown_expectations_are_refused() {
    let edge = Edge::echo().await;
    for expect in ["expect: 200-ok", "expect: 100-continue, x", "expect: 100-continue\r\nexpect: x"] {
        let head = "POST /v1/things HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\ncontent-length: 2\r\n";
        let (reply, mut client) = send_raw(&edge, format!("{head}{expect}\r\n\r\n{{}}")).await;
        assert_eq!((reply.status, reply.violation().0.as_str()), (417, "expect"), "{expect}");
        assert!(is_kept_alive(&mut client).await, "{expect}");
    }
    // Without a body there is nothing to wait for.
    let (reply, _) = send_raw(&edge, "GET /v1/things/one HTTP/1.1\r\nhost: edge\r\nexpect: 100-Continue\r\n\r\n").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn an_ambiguous_body_length_closes_the_connection() {
    let edge = Edge::echo().await;
    let head = "POST /v1/things HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\n";
    let chunked = "2\r\n{}\r\n0\r\n\r\n";
    for (lines, body, status) in [
        ("content-length: 2\r\ntransfer-encoding: chunked", chunked, 200),
        ("transfer-encoding: chunked\r\ncontent-length: 2", chunked, 200),
        ("transfer-encoding: gzip", "{}", 400),
        ("transfer-encoding: chunked, gzip", chunked, 400),
        ("content-length: 2\r\ncontent-length: 3", "{}", 400),
        ("content-length: 2, 3", "{}", 400),
        ("content-length: +2", "{}", 400),
        ("content-length: -1", "{}", 400),
        ("content-length: 2\r\n folded: x", "{}", 400),
        ("content-length : 2", "{}", 400),
    ] {
        let (reply, mut client) = send_raw(&edge, format!("{head}{lines}\r\n\r\n{body}")).await;
        assert_eq!(reply.status, status, "{lines}: {}", reply.text());
        assert!(client.is_closed().await, "{lines}");
    }
    let old = "POST /v1/things HTTP/1.0\r\nhost: edge\r\ntransfer-encoding: chunked\r\n\r\n";
    let (reply, mut client) = send_raw(&edge, format!("{old}{chunked}")).await;
    assert!(reply.status == 400 && client.is_closed().await);
}

#[tokio::test]
async fn trailers_are_ignored() {
    let edge = Edge::echo().await;
    let head =
        "POST /v1/things HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n";
    let trailers = "content-type: text/plain\r\nauthorization: Bearer x\r\nhost: other\r\n";
    let (reply, mut client) = send_raw(&edge, format!("{head}\r\n2\r\n{{}}\r\n0\r\n{trailers}\r\n")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(is_kept_alive(&mut client).await);
}

#[tokio::test]
async fn malformed_http2_requests_fail_their_stream_only() {
    let edge = Edge::echo().await;
    let stream = TokioIo::new(TcpStream::connect(edge.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let mut send = async |method: &str, header: (&str, &str), body: &'static str| {
        let request = http::Request::builder().method(method).uri("http://edge/v1/things");
        let request = request.header("content-type", "application/json").header(header.0, header.1);
        sender
            .send_request(request.body(Full::new(Bytes::from(body))).unwrap())
            .await
            .map(|reply| reply.status().as_u16())
    };
    assert_eq!(send("GET", ("x", &"y".repeat(20_000)), "").await.ok(), Some(431));
    assert_eq!(send("POST", ("expect", "x"), "{}").await.ok(), Some(417));
    // The body is longer than its content-length (RFC 9113, section 8.1.1).
    assert_ne!(send("POST", ("content-length", "1"), "{}").await.ok(), Some(200));
    assert_eq!(send("POST", ("x", "y"), "{}").await.ok(), Some(200), "the connection is kept");
}

#[tokio::test]
async fn an_empty_line_before_a_request_is_skipped() {
    let edge = Edge::echo().await;
    let (reply, mut client) = send_raw(&edge, "\r\nGET /v1/things/one HTTP/1.1\r\nhost: edge\r\n\r\n").await;
    assert!(reply.status == 200 && is_kept_alive(&mut client).await);
}

#[tokio::test]
async fn an_upgrade_is_ignored() {
    let edge = Edge::echo().await;
    for protocol in ["h2c", "websocket"] {
        let head = "GET /v1/things/one HTTP/1.1\r\nhost: edge\r\nhttp2-settings: AAMAAABk\r\n";
        let upgrade = format!("{head}connection: upgrade, http2-settings\r\nupgrade: {protocol}\r\n\r\n");
        let (reply, mut client) = send_raw(&edge, upgrade).await;
        assert!(reply.status == 200 && is_kept_alive(&mut client).await, "{protocol}");
    }
}

#[tokio::test]
async fn connection_close_is_honoured_and_too_many_headers_are_refused() {
    let edge = Edge::echo().await;
    for connection in ["close", "Close", "keep-alive, close"] {
        let request = format!("GET /v1/things/one HTTP/1.1\r\nhost: edge\r\nconnection: {connection}\r\n\r\n");
        let (reply, mut client) = send_raw(&edge, request).await;
        assert_eq!((reply.status, reply.header("connection")), (200, "close"), "{connection}");
        assert!(!reply.header("date").is_empty() && client.is_closed().await, "{connection}");
    }
    let headers = "x: y\r\n".repeat(200);
    let (reply, _) = send_raw(&edge, format!("GET /v1/things HTTP/1.1\r\nhost: edge\r\n{headers}\r\n")).await;
    assert_eq!(reply.status, 431);
}

#[tokio::test]
async fn an_unsupported_body_gets_the_accepted_types() {
    let edge = Edge::echo().await;
    let accepted =
        |reply: &Reply| ["accept", "accept-encoding", "accept-patch"].map(|name| reply.header(name).to_owned());
    for request in ["POST /v1/things", "PATCH /v1/things/1"] {
        let reply = edge.request(&format!("{request}\ncontent-encoding: gzip"), "{}").await;
        assert_eq!((reply.status, accepted(&reply)), (415, ["", "identity", ""].map(str::to_owned)), "{request}");
        let reply = edge.request(&format!("{request}\ncontent-type: text/plain"), "{}").await;
        let patch = if request.starts_with("PATCH") { "application/json" } else { "" };
        assert_eq!(
            (reply.status, accepted(&reply)),
            (415, ["application/json", "", patch].map(str::to_owned)),
            "{request}"
        );
    }
    for encoding in ["identity", "Identity, identity", ","] {
        assert_eq!(edge.request(&format!("POST /v1/things\ncontent-encoding: {encoding}"), "{}").await.status, 200);
    }
    let reply = edge.request("POST /v1/things\ncontent-encoding: identity, br", "{}").await;
    assert_eq!((reply.status, reply.header("accept-encoding")), (415, "identity"));
    assert_eq!(edge.request("OPTIONS /v1/things/1", "").await.header("accept-patch"), "application/json");
    assert_eq!(edge.request("OPTIONS /v1/things", "").await.header("accept-patch"), "");
}
