//! Invalid requests get an error response, and keep their connection.

use crate::{
    Edge,
    client::{self, TOKEN},
};

/// Sends an invalid request and then a valid one on the same connection.
async fn refused(edge: &Edge, request: &str, body: impl AsRef<[u8]>) -> client::Reply {
    let mut client = edge.client().await;
    let reply = client.request(request, body).await;
    assert!((400..500).contains(&reply.status), "{request}: {} {}", reply.status, reply.text());
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(!reply.header("x-request-id").is_empty());
    assert_eq!(reply.header("connection"), "", "{request}");
    let valid = client.request("POST /v1/things", r#"{"text": "good"}"#).await;
    assert_eq!((valid.status, valid.json()["text"].as_str()), (200, Some("good")), "after {request}");
    reply
}

#[tokio::test]
async fn bodies_that_are_not_json() {
    let edge = Edge::echo().await;
    let cases: [(&[u8], &str); 16] = [
        (b"{", "ends in the middle"),
        (b"   ", "ends in the middle"),
        (b"{\"text\": \"a\"} x", "not JSON"),
        (b"{\"text\": \"a\"}{\"text\": \"b\"}", "not JSON"),
        (b"{'text': 'a'}", "not JSON"),
        (b"{\"text\": \"a\",}", "not JSON"),
        (b"text=a", "not JSON"),
        (b"{\"number\": 01}", "not JSON"),
        (b"{\"fraction\": 1e999}", "not JSON"),
        (b"{\"fraction\": NaN}", "not JSON"),
        (b"{\"text\": \"\\ud800\"}", "not JSON"),
        (b"{\"text\": \"\x01\"}", "not JSON"),
        (b"{\"text\": \"\xff\xfe\"}", "not UTF-8: byte 11"),
        (b"\xff", "not UTF-8: byte 1"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"\x00", "not JSON"),
    ];
    for (body, text) in cases {
        let reply = refused(&edge, "POST /v1/things", body).await;
        let shown = String::from_utf8_lossy(body);
        assert_eq!((reply.status, reply.reason().as_str()), (400, "MALFORMED_BODY"), "{shown}");
        assert!(reply.json()["message"].as_str().unwrap().contains(text), "{shown}: {}", reply.text());
    }
    for body in ["[]", "1", "\"text\"", "null", "true"] {
        let reply = refused(&edge, "POST /v1/things", body).await;
        assert_eq!(reply.reason(), "MALFORMED_BODY", "{body}");
        assert!(reply.text().contains("must be a JSON object"), "{body}: {}", reply.text());
    }
}

#[tokio::test]
async fn members_that_are_unknown_or_invalid() {
    let edge = Edge::echo().await;
    for (body, field, text) in [
        (r#"{"nope": 1}"#, "nope", "known are text, number"),
        (r#"{"nested": {"nope": 1}}"#, "nested.nope", "known are displayName, bigNumber, deeper"),
        (r#"{"text": 1}"#, "text", "must be a string"),
        (r#"{"text": ["a"]}"#, "text", "must be a string"),
        (r#"{"number": "x"}"#, "number", "must be a whole number from -2147483648"),
        (r#"{"number": 1.5}"#, "number", "must be a whole number"),
        (r#"{"number": 2147483648}"#, "number", "must be a whole number"),
        (r#"{"bigNumber": "9223372036854775808"}"#, "bigNumber", "must be a whole number"),
        (r#"{"count": -1}"#, "count", "from 0 to 4294967295"),
        (r#"{"switch": "true"}"#, "switch", "true or false"),
        (r#"{"smallFraction": 1e39}"#, "smallFraction", "a number"),
        (r#"{"data": "?"}"#, "data", "base64"),
        (r#"{"colour": "MAUVE"}"#, "colour", "one of COLOUR_UNSPECIFIED, COLOUR_RED"),
        (r#"{"nested": []}"#, "nested", "must be an object"),
        (r#"{"texts": "a"}"#, "texts", "must be a list, each item a string"),
        (r#"{"texts": ["a", 1]}"#, "texts[1]", "must be a string"),
        (r#"{"children": [{}, {"bigNumber": {}}]}"#, "children[1].bigNumber", "must be a whole number"),
        (r#"{"labels": {"k": 1}}"#, "labels.k", "must be a string"),
        (r#"{"byName": {"k": {"nope": 1}}}"#, "byName.k.nope", "is not known"),
        (r#"{"at": "yesterday"}"#, "at", "2030-01-31"),
        (r#"{"at": 5}"#, "at", "2030-01-31"),
        (r#"{"for": "1h"}"#, "for", "1.5s"),
        (r#"{"mask": ["a"]}"#, "mask", "commas"),
        (r#"{"maybeNumber": "x"}"#, "maybeNumber", "whole number"),
        (r#"{"left": "a", "right": "b"}"#, "right", "only one of left, right"),
        (r#"{"text": "a", "text": "b"}"#, "text", "twice"),
        (r#"{"nested": {"displayName": "a", "displayName": "a"}}"#, "nested.displayName", "twice"),
        (r#"{"labels": {"k": "a", "k": "b"}}"#, "labels.k", "twice"),
        (r#"{"anything": {"a": 1, "a": 2}}"#, "anything.a", "twice"),
    ] {
        let reply = refused(&edge, "POST /v1/things", body).await;
        assert_eq!((reply.status, reply.reason().as_str()), (400, "INVALID_REQUEST"), "{body}");
        let (name, description) = reply.violation();
        assert!(name == field && description.contains(text), "{body}: {name}: {description}");
    }
}

#[tokio::test]
async fn an_error_does_not_contain_the_sent_value() {
    let edge = Edge::echo().await;
    let secret = "correct horse battery staple";
    for body in [
        format!(r#"{{"number": "{secret}"}}"#),
        format!(r#"{{"colour": "{secret}"}}"#),
        format!(r#"{{"at": "{secret}"}}"#),
    ] {
        assert!(!refused(&edge, "POST /v1/things", body).await.text().contains(secret));
    }
    let long = "x".repeat(100_000);
    assert!(refused(&edge, "POST /v1/things", format!(r#"{{"{long}": 1}}"#)).await.body.len() < 2000);
    assert!(refused(&edge, &format!("GET /v1/things?{}=1", &long[..10_000]), "").await.body.len() < 2000);
}

#[tokio::test]
async fn json_that_is_nested_too_deep() {
    let edge = Edge::echo().await;
    let nest = |open: &str, depth: usize, inner: &str, close: &str| open.repeat(depth) + inner + &close.repeat(depth);
    for body in [
        nest("[", 200, "", "]"),
        nest("[", 200_000, "", "]"),
        nest(r#"{"anything":"#, 200, "{}", "}"),
        format!(r#"{{"nested": {}}}"#, nest(r#"{"deeper":"#, 200, "{}", "}")),
        format!(r#"{{"anything": {{"a": {}}}}}"#, nest("[", 200, "", "]")),
        format!(r#"{{"anything": {{"a": {}}}}}"#, nest("[", 100_000, "", "]")),
    ] {
        refused(&edge, "POST /v1/things", &body).await;
    }
    let body = format!(r#"{{"nested": {}}}"#, nest(r#"{"deeper":"#, 200, "{}", "}"));
    let reply = refused(&edge, "POST /v1/things", body).await;
    assert_eq!(reply.reason(), "MALFORMED_BODY");
    assert!(reply.text().contains("nested too deep"), "{}", reply.text());
}

#[tokio::test]
async fn every_accepted_nesting_can_be_encoded() {
    let edge = Edge::echo().await;
    // No nesting may pass the limit of JSON and then fail at that of protobuf.
    for depth in 1..40 {
        for body in [
            format!(r#"{{"nested": {}{{}}{}}}"#, r#"{"deeper":"#.repeat(depth), "}".repeat(depth)),
            format!(r#"{{"anything": {{"a": {}{}}}}}"#, "[".repeat(depth), "]".repeat(depth)),
            format!(r#"{{"anything": {}1{}}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth)),
        ] {
            let reply = edge.request("POST /v1/things", &body).await;
            let wanted = if depth <= 29 { 200 } else { reply.status.min(400) };
            assert_eq!(reply.status, wanted, "{depth}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let edge = Edge::echo().await;
    let body = |size: usize| format!(r#"{{"text": "{}"}}"#, "x".repeat(size - 12));
    let limit = 1024 * 1024;
    let reply = edge.request("POST /v1/things", &body(limit)).await;
    assert_eq!((reply.status, body(limit).len()), (200, limit));
    for size in [limit + 1, 2 * limit, 15 * limit] {
        let reply = refused(&edge, "POST /v1/things", body(size)).await;
        assert_eq!((reply.status, reply.reason().as_str()), (413, "BODY_TOO_LARGE"), "{size}");
    }
    // Without a route the body is drained; the connection is kept all the same.
    assert_eq!(refused(&edge, "POST /v1/nothing", body(2 * limit)).await.status, 404);
    assert_eq!(refused(&edge, "PUT /v1/things", body(2 * limit)).await.status, 405);
    assert_eq!(refused(&edge, "DELETE /v1/things/1", body(2 * limit)).await.status, 413);
}

#[tokio::test]
async fn a_large_body_in_chunks_is_refused_too() {
    let edge = Edge::echo().await;
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    let body = [chunk.repeat(17), b"0\r\n\r\n".to_vec()].concat();
    let reply = refused(&edge, "POST /v1/things\ntransfer-encoding: chunked", &body).await;
    assert_eq!(reply.status, 413);
    let body = "2\r\n{}\r\n0\r\n\r\n";
    assert_eq!(edge.request("POST /v1/things\ntransfer-encoding: chunked", body).await.status, 200);
}

#[tokio::test]
async fn unsupported_content_types_are_refused() {
    let edge = Edge::echo().await;
    for header in [
        "content-type: text/plain",
        "content-type: application/x-www-form-urlencoded",
        "content-type: application/json; charset=iso-8859-1",
        "content-type: application/jsonx",
        "content-type:",
        "content-type: application/json\ncontent-type: application/json",
        "content-type: application/json\ncontent-encoding: gzip",
    ] {
        let reply = refused(&edge, &format!("POST /v1/things\n{header}"), "{}").await;
        assert_eq!((reply.status, reply.reason().as_str()), (415, "UNSUPPORTED_MEDIA_TYPE"), "{header}");
    }
    for header in ["content-type: application/json;charset=UTF-8", "Content-Type: Application/Json"] {
        assert_eq!(edge.request(&format!("POST /v1/things\n{header}"), "{}").await.status, 200, "{header}");
    }
    let bare = b"POST /v1/things HTTP/1.1\r\nhost: edge\r\ncontent-length: 2\r\n\r\n{}";
    let mut client = edge.client().await;
    client.send(bare).await;
    assert_eq!(client.receive(false).await.status, 415);
    assert_eq!(client.request("GET /health", "").await.status, 200);
}

#[tokio::test]
async fn invalid_headers_are_refused() {
    let edge = Edge::echo().await;
    for timeout in ["soon", "1", "-1S", "1s", "123456789S", ""] {
        let reply = refused(&edge, &format!("GET /v1/things\ngrpc-timeout: {timeout}"), "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (400, "MALFORMED_TIMEOUT"), "{timeout}");
    }
}

#[tokio::test]
async fn a_token_that_no_service_would_accept_is_refused_before_the_body_is_read() {
    let edge = Edge::echo().await;
    let long = format!("Bearer {}", "a".repeat(10_000));
    let cases = [
        ("authorization:", "TOKEN_INVALID"),
        ("authorization: Bearer a", "TOKEN_INVALID"),
        ("authorization: Basic YWRh", "TOKEN_INVALID"),
        (&format!("authorization: Bearer {TOKEN}\nauthorization: Bearer {TOKEN}"), "TOKEN_INVALID"),
        (&format!("authorization: {long}"), "TOKEN_INVALID"),
    ];
    for (headers, reason) in cases {
        // The body is neither JSON nor of its media type, and too large.
        let body = vec![b'x'; 2 << 20];
        let reply = refused(&edge, &format!("PATCH /v1/things/1\ncontent-type: text/plain\n{headers}"), &body).await;
        assert_eq!((reply.status, reply.reason().as_str()), (401, reason), "{headers:.60}");
        assert_eq!(reply.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    }
    let mut client = edge.client().await;
    // The refusal does not wait for the body.
    client
        .send(b"PATCH /v1/things/1 HTTP/1.1\r\nhost: edge\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n")
        .await;
    let reply = client.receive(false).await;
    assert_eq!((reply.status, reply.reason().as_str()), (401, "TOKEN_MISSING"));
    assert_eq!(reply.header("www-authenticate"), "Bearer");
    assert!(edge.backend.received().iter().all(|call| !call.path.ends_with("/Update")));
}

#[tokio::test]
async fn invalid_request_heads_are_refused_before_the_connection_closes() {
    let edge = Edge::echo().await;
    let cases = [
        ("GARBAGE\r\n\r\n".to_owned(), 400),
        ("GET /v1/things HTTP/1.1\r\nbad header\r\n\r\n".to_owned(), 400),
        (format!("GET /v1/things HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000)), 431),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(100_000)), 414),
    ];
    for (bytes, status) in cases {
        let mut client = edge.client().await;
        client.send(bytes.as_bytes()).await;
        let reply = client.receive(false).await;
        assert!(reply.status == status || (status == 414 && reply.status == 431), "{} {:.60}", reply.status, bytes);
    }
}
