//! Requests that keep TLS and HTTP/2 and break the form that gRPC gives them, as any HTTP client can send them.

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;

use super::{
    TestServer,
    http2::{LOOK_UP, connect, framed, request, tls},
};

/// The answer's status, and its headers and trailers together.
async fn send(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> (StatusCode, HeaderMap) {
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let mut headers = head.headers;
    if let Some(trailers) = body.collect().await.unwrap().trailers() {
        headers.extend(trailers.clone());
    }
    (head.status, headers)
}

fn code(headers: &HeaderMap) -> &str {
    headers["grpc-status"].to_str().unwrap()
}

/// How many calls have been counted with this method label and code.
fn counted(server: &TestServer, method: &str, code: &str) -> f64 {
    let text = server.metrics.render();
    let is_it = |line: &&str| {
        line.starts_with("drystone_calls_total")
            && line.contains(&format!("method=\"{method}\""))
            && line.contains(&format!("code=\"{code}\""))
    };
    text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn a_content_type_other_than_grpc_is_answered_415_and_not_executed() {
    let server = TestServer::new().await;
    let mut sender = connect(&server).await;
    let refused: [&[(&str, &str)]; 5] = [
        &[],
        &[("content-type", "application/json")],
        &[("content-type", "application/grpc+json")],
        &[("content-type", "application/grpc-web+proto")],
        &[("content-type", "application/grpc"), ("content-type", "application/json")],
    ];
    for headers in refused {
        let (status, answer) = send(&mut sender, request(Method::POST, LOOK_UP, headers, framed("describe"))).await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{headers:?}");
        assert_eq!((code(&answer), &answer["accept"]), ("3", &http::HeaderValue::from_static("application/grpc")));
    }
    assert!((counted(&server, "LookUpForSignIn", "INVALID_ARGUMENT") - 5.0).abs() < 0.1, "{}", server.metrics.render());
    assert!(counted(&server, "LookUpForSignIn", "OK") < 0.1, "none was executed");

    let json: &[_] = &[("content-type", "application/json")];
    let (status, _) = send(&mut sender, request(Method::POST, "/no.Such/Rpc", json, framed("describe"))).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "whatever the path is");

    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"] {
        let headers: &[_] = &[("content-type", content_type)];
        let (status, answer) = send(&mut sender, request(Method::POST, LOOK_UP, headers, framed("describe"))).await;
        assert_eq!((status, code(&answer)), (StatusCode::OK, "0"), "{content_type}");
    }
}

#[tokio::test]
async fn a_method_other_than_post_is_answered_405() {
    let server = TestServer::new().await;
    let mut sender = connect(&server).await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS, Method::HEAD] {
        let headers: &[_] = &[("content-type", "application/grpc")];
        let body = if method == Method::PUT { framed("describe") } else { Vec::new() };
        let (status, answer) = send(&mut sender, request(method.clone(), LOOK_UP, headers, body)).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(&answer["allow"], "POST", "{method}");
    }
    assert!((counted(&server, "LookUpForSignIn", "UNIMPLEMENTED") - 5.0).abs() < 0.1, "{}", server.metrics.render());
}

#[tokio::test]
async fn the_status_codes_of_malformed_requests_are_those_of_the_grpc_specification() {
    let server = TestServer::new().await;
    let mut sender = connect(&server).await;
    let mut several = framed("describe");
    several.extend(framed("describe"));
    let too_long = [0, 0, 0x40, 0, 1].to_vec();
    let mut compressed = framed("describe");
    compressed[0] = 1;
    let mut cut = framed("describe");
    cut.pop();
    for (what, body, expected) in [
        ("no message", Vec::new(), "12"),
        ("several messages", several, "12"),
        ("a message that is too long", too_long, "8"),
        ("a compressed message without an encoding", compressed, "13"),
        ("half a message", cut, "13"),
    ] {
        let headers: &[_] = &[("content-type", "application/grpc"), ("te", "trailers")];
        let (status, answer) = send(&mut sender, request(Method::POST, LOOK_UP, headers, body)).await;
        assert_eq!((status, code(&answer)), (StatusCode::OK, expected), "{what}: {answer:?}");
    }

    for encoding in ["gzip", &"%".repeat(20_000)] {
        let mut compressed =
            request(Method::POST, LOOK_UP, &[("content-type", "application/grpc")], framed("describe"));
        compressed.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let (_, answer) = send(&mut sender, compressed).await;
        assert_eq!((code(&answer), answer["grpc-accept-encoding"].as_bytes()), ("12", b"identity".as_slice()));
        assert!(answer["grpc-message"].len() < 200, "{answer:?}");
    }
}

/// Where resets count against the connection, calls of others end with it.
#[tokio::test]
async fn a_request_rejected_before_its_body_is_not_reset() {
    let server = TestServer::new().await;
    let (mut sender, connection) = h2::client::handshake(tls(&server).await).await.unwrap();
    let mut connection = connection;
    let mut ping = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    let (grpc, json) = ("application/grpc", "application/json");
    let refused =
        [("/drystone.user.v1.UserService/GetMe", grpc, "7"), (LOOK_UP, json, "3"), ("/no.Such/Rpc", grpc, "12")];
    for (path, content_type, code) in refused {
        sender = sender.ready().await.unwrap();
        let (head, _) = request(Method::POST, path, &[("content-type", content_type)], Vec::new()).into_parts();
        let (answer, mut body) = sender.send_request(Request::from_parts(head, ()), false).unwrap();
        assert_eq!(answer.await.unwrap().headers()["grpc-status"], code, "{path}");
        // Whatever the server sent with its answer is here before the answer to a ping.
        ping.ping(h2::Ping::opaque()).await.unwrap();
        let reset = std::future::poll_fn(|context| body.poll_reset(context)).now_or_never();
        assert!(reset.is_none(), "{path}: {reset:?}");
        body.send_data(Bytes::from(framed("describe")), true).unwrap();
    }
}
