//! Routing of requests to RPCs.

use serde_json::json;

use crate::Edge;

/// The RPC that a request reaches, or else the status of its response.
async fn reached(edge: &Edge, request: &str) -> String {
    let before = edge.backend.received().len();
    let reply = edge.request(request, "").await;
    match edge.backend.received().get(before) {
        Some(received) => received.path.rsplit('/').next().unwrap().to_owned(),
        None => reply.status.to_string(),
    }
}

#[tokio::test]
async fn every_binding_reaches_its_rpc() {
    let edge = Edge::echo().await;
    for (request, rpc) in [
        ("GET /v1/things", "Search"),
        ("GET /v1/things/one", "Get"),
        ("GET /v1/things/special", "GetSpecial"),
        ("GET /v1/numbers/7", "Get"),
        ("GET /v1/nested/a/colours/COLOUR_RED", "Get"),
        ("GET /v1/files/a/b/c", "Get"),
        ("GET /v1/shelves/shelf/3/books", "Get"),
        ("REPORT /v1/things", "Get"),
        ("POST /v1/things", "Create"),
        ("POST /v1/things:reset", "Reset"),
        ("POST /v1/things/7:archive", "Archive"),
        ("PATCH /v1/things/1", "Update"),
        ("PATCH /v1/things/special", "Update"),
        ("PUT /v1/texts", "SetTexts"),
        ("DELETE /v1/things/1", "Delete"),
        ("GET /v1/pages", "List"),
    ] {
        assert_eq!(reached(&edge, request).await, rpc, "{request}");
    }
}

#[tokio::test]
async fn a_path_without_binding_is_not_found() {
    let edge = Edge::echo().await;
    for request in [
        "GET /",
        "GET /v1/things/",
        "GET /v1//things",
        "GET /v1/things/a/b",
        "GET /v1/Things",
        "POST /acme.fixture.v1.FixtureService/Hidden",
        "POST /acme.fixture.v1.FixtureService/Search",
        "GET /../v1/things",
        "GET /health/",
    ] {
        let reply = edge.request(request, "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (404, "ROUTE_NOT_FOUND"), "{request}");
        assert_eq!(reply.json()["code"], 5);
    }
    assert!(edge.backend.received().is_empty());
}

#[tokio::test]
async fn method_not_allowed_lists_the_allowed_methods() {
    let edge = Edge::echo().await;
    for (request, allow) in [
        ("DELETE /v1/things", "GET, HEAD, OPTIONS, POST, REPORT"),
        ("PUT /v1/things/special", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("GET /v1/things:reset", "OPTIONS, POST"),
        ("BREW /v1/texts", "OPTIONS, PUT"),
        ("TRACE /v1/texts", "OPTIONS, PUT"),
        ("POST /health", "GET, HEAD, OPTIONS"),
    ] {
        let reply = edge.request(request, "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (405, "METHOD_NOT_ALLOWED"), "{request}");
        assert_eq!(reply.header("allow"), allow, "{request}");
    }
    assert!(edge.backend.received().is_empty());
}

#[tokio::test]
async fn a_custom_method_is_not_part_of_a_path_variable() {
    let edge = Edge::echo().await;
    for request in ["GET", "HEAD", "PATCH", "DELETE"].map(|method| format!("{method} /v1/things/7:reset")) {
        let reply = edge.request(&request, "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, "OPTIONS, POST"), "{request}");
    }
    let archive = edge.request("GET /v1/things/0190b3c4-0000-7000-8000-000000000001:archive", "").await;
    assert_eq!((archive.status, archive.reason().as_str()), (405, "METHOD_NOT_ALLOWED"));
    assert_eq!(archive.header("allow"), "OPTIONS, POST");
    let reply = edge.request("OPTIONS /v1/things/7:reset", "").await;
    assert_eq!((reply.status, reply.header("allow")), (204, "OPTIONS, POST"));
    assert!(edge.backend.received().is_empty());
    for path in ["/v1/things/a%2Fb:reset", "/v1/things/a%2Fb:re%73et"] {
        assert_eq!(edge.received(&format!("POST {path}"), "").await, json!({"text": "a/b"}), "{path}");
    }
    for (path, text) in
        [("7:restore", "7:restore"), ("7%3Areset", "7:reset"), ("7:", "7:"), ("urn:uuid:7", "urn:uuid:7")]
    {
        assert_eq!(edge.received(&format!("GET /v1/things/{path}"), "").await, json!({"text": text}), "{path}");
    }
}

#[tokio::test]
async fn options_lists_the_allowed_methods() {
    let edge = Edge::echo().await;
    let reply = edge.request("OPTIONS /v1/things/special", "").await;
    assert_eq!((reply.status, reply.header("allow")), (204, "DELETE, GET, HEAD, OPTIONS, PATCH"));
    assert!(reply.body.is_empty() && edge.backend.received().is_empty());
    assert_eq!(edge.request("OPTIONS /v1/nothing", "").await.status, 404);
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let edge = Edge::echo().await;
    let mut client = edge.client().await;
    let get = client.request("GET /v1/things/one", "").await;
    let head = client.request("HEAD /v1/things/one", "").await;
    assert_eq!((head.status, head.header("content-length")), (200, get.header("content-length")));
    assert_eq!(client.request("HEAD /v1/nothing", "").await.status, 404);
    assert_eq!(client.request("HEAD /v1/texts", "").await.status, 405);
    // A body after HEAD would be read as the start of this response.
    assert_eq!(client.request("GET /v1/things/one", "").await.status, 200);
}

#[tokio::test]
async fn path_variables_set_their_fields() {
    let edge = Edge::echo().await;

    for (path, message) in [
        ("/v1/things/one", json!({"text": "one"})),
        ("/v1/things/a%2Fb%20%C3%BC+:~", json!({"text": "a/b ü+:~"})),
        ("/v1/numbers/-7", json!({"number": -7})),
        ("/v1/nested/a%26b/colours/COLOUR_RED", json!({"nested": {"displayName": "a&b"}, "colour": "COLOUR_RED"})),
        ("/v1/nested/a/colours/2", json!({"nested": {"displayName": "a"}, "colour": "COLOUR_BLUE"})),
        ("/v1/files/a/b%20c/d%2fe", json!({"text": "a/b c/d%2fe"})),
        ("/v1/files", json!({})),
        ("/v1/shelves/shelf/3/books", json!({"text": "shelf/3"})),
        ("/v1/%74hings/one", json!({"text": "one"})),
        ("/v1/things/..", json!({"text": ".."})),
    ] {
        assert_eq!(edge.received(&format!("GET {path}"), "").await, message, "{path}");
    }
}

#[tokio::test]
async fn invalid_path_variables_are_named() {
    let edge = Edge::echo().await;
    for (request, field, text) in [
        ("GET /v1/numbers/seven", "number", "whole number"),
        ("GET /v1/numbers/99999999999", "number", "whole number"),
        ("GET /v1/nested/a/colours/MAUVE", "colour", "COLOUR_RED"),
        ("GET /v1/things/%zz", "text", "%25"),
        ("GET /v1/things/%ff", "text", "UTF-8"),
        ("GET /v1/nested/%c3/colours/1", "nested.displayName", "UTF-8"),
        ("PATCH /v1/things/%ff", "id", "UTF-8"),
    ] {
        let reply = edge.request(request, "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (400, "INVALID_REQUEST"), "{request}");
        let (name, description) = reply.violation();
        assert!(name == field && description.contains(text), "{request}: {name}: {description}");
    }
    assert!(edge.backend.received().is_empty());
}

#[tokio::test]
async fn the_edge_serves_its_own_health() {
    let edge = Edge::echo().await;
    let reply = edge.request("GET /health", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"status":"ok"}"#));
    assert!(edge.backend.received().is_empty());
}
