//! The differences between Envoy and the edge that docs/envoy.md lists, as they are found.

use drystone_tests::{Envoy, Mesh, RestResponse, User};
use http::Method;
use serde_json::json;

#[tokio::test]
async fn envoy_and_edge_differ_as_documented() {
    let mesh = Mesh::start();
    let envoy = Envoy::start(&mesh).await;
    let (_, tokens) = User::signed_in(&mesh).await;
    let (edge, envoy) = (mesh.rest(), envoy.rest());
    let property = json!({"displayName": "Barn"});
    let with_body = |method: Method, path: &str, body: &str, kind: &'static str| {
        edge.request(method, path).bearer(&tokens.access).body(kind, body.to_owned())
    };
    let plain = |method: Method, path: &str| edge.request(method, path).bearer(&tokens.access);
    let json = "application/json";
    let requests = [
        (
            "unknown field",
            with_body(Method::POST, "/v1/properties", r#"{"displayName": "Barn", "x": 1}"#, json),
            (400, 200),
        ),
        (
            "duplicate field",
            with_body(Method::POST, "/v1/properties", r#"{"displayName": "Barn", "display_name": "Shed"}"#, json),
            (400, 200),
        ),
        ("content type", with_body(Method::POST, "/v1/properties", &property.to_string(), "text/plain"), (415, 200)),
        ("malformed", with_body(Method::POST, "/v1/properties", "{", json), (400, 400)),
        ("trailing slash", plain(Method::GET, "/v1/users/me/"), (404, 200)),
        ("escaped slash", plain(Method::GET, "/v1/users%2Fme"), (404, 400)),
        ("unknown path", plain(Method::GET, "/v1/nothing"), (404, 404)),
        ("unknown parameter", plain(Method::GET, "/v1/properties?x=1"), (400, 400)),
        ("method", plain(Method::PUT, "/v1/users/me"), (405, 404)),
        ("HEAD", plain(Method::HEAD, "/v1/users/me"), (200, 404)),
        ("OPTIONS", plain(Method::OPTIONS, "/v1/users/me"), (204, 404)),
    ];
    let mut found = Vec::new();
    for (name, request, statuses) in requests {
        let by_edge: RestResponse = request.clone().send().await;
        let by_envoy = request.to_server(envoy).send().await;
        // An error of Envoy's own reads like one of the edge.
        if (400..=404).contains(&by_envoy.status) && by_envoy.status == by_edge.status {
            assert_eq!(by_envoy.header("content-type"), "application/json", "{name}: {}", by_envoy.text());
            assert!(by_envoy.detail("google.rpc.ErrorInfo").is_some(), "{name}: {}", by_envoy.text());
        }
        if (by_edge.status, by_envoy.status) != statuses {
            found.push((name, by_edge.status, by_envoy.status, by_envoy.text()));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    // What proxies and browsers go by is the same.
    for path in ["/v1/users/me", "/health"] {
        let (by_edge, by_envoy) = (edge.get(path).send().await, envoy.get(path).send().await);
        assert_eq!(by_edge.status, by_envoy.status, "{path}");
        for name in ["www-authenticate", "content-type"] {
            assert_eq!(by_edge.header(name), by_envoy.header(name), "{path}: {name}");
        }
    }
    assert_eq!(edge.get("/health").send().await.text(), envoy.get("/health").send().await.text());
}
