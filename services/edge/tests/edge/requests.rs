//! Transcoding of bodies and queries to messages.

use serde_json::json;

use crate::Edge;

#[tokio::test]
async fn query_parameters_set_fields_of_every_type() {
    let edge = Edge::echo().await;
    for (query, message) in [
        ("", json!({})),
        (
            "text=a+b%2Bc&number=-1&bigNumber=9007199254740993",
            json!({"text": "a b+c", "number": -1, "bigNumber": "9007199254740993"}),
        ),
        ("big_number=5", json!({"bigNumber": "5"})),
        ("switch=true&fraction=0.5&count=3", json!({"switch": true, "fraction": 0.5, "count": 3})),
        ("data=-_8", json!({"data": "+/8="})),
        ("colour=COLOUR_BLUE", json!({"colour": "COLOUR_BLUE"})),
        ("colours=COLOUR_RED&colours=2", json!({"colours": ["COLOUR_RED", "COLOUR_BLUE"]})),
        ("texts=b&texts=a&numbers=2&numbers=1", json!({"texts": ["b", "a"], "numbers": [2, 1]})),
        (
            "nested.displayName=x&nested.deeper.big_number=1",
            json!({"nested": {"displayName": "x", "deeper": {"bigNumber": "1"}}}),
        ),
        ("at=2030-01-31T12:00:00Z&for=90s", json!({"at": "2030-01-31T12:00:00Z", "for": "90s"})),
        ("mask=displayName,nested.big_number", json!({"mask": "displayName,nested.bigNumber"})),
        ("maybeNumber=0&maybeText=", json!({"maybeNumber": 0, "maybeText": ""})),
        ("perhaps=", json!({"perhaps": ""})),
        ("left=a", json!({"left": "a"})),
        ("&text=%C3%BC&&", json!({"text": "ü"})),
        ("text", json!({})),
        ("text=a=b", json!({"text": "a=b"})),
    ] {
        assert_eq!(edge.received(&format!("GET /v1/things?{query}"), "").await, message, "{query}");
    }
}

#[tokio::test]
async fn invalid_query_parameters_are_named() {
    let edge = Edge::echo().await;
    for (request, field, text) in [
        ("GET /v1/things?nope=1", "nope", "known are text, number"),
        ("GET /v1/things?nested.nope=1", "nested.nope", "is not known"),
        ("GET /v1/things?=1", "", "is not known"),
        ("GET /v1/things?number=x", "number", "whole number"),
        ("GET /v1/things?number=", "number", "whole number"),
        ("GET /v1/things?numbers=1&numbers=x", "numbers", "whole number"),
        ("GET /v1/things?number=1&number=2", "number", "twice"),
        ("GET /v1/things?bigNumber=1&big_number=2", "big_number", "twice"),
        ("GET /v1/things?nested=x", "nested", "name the field inside"),
        ("GET /v1/things?labels=x", "labels", "cannot be given"),
        ("GET /v1/things?children.displayName=x", "children.displayName", "is not known"),
        ("GET /v1/things?left=a&right=b", "right", "together with left"),
        ("GET /v1/things?text=%ff", "text", "UTF-8"),
        ("GET /v1/things?text=%", "text", "%25"),
        ("GET /v1/things?%ff=1", "%ff", "UTF-8"),
        ("GET /v1/things?at=tomorrow", "at", "2030-01-31"),
        ("GET /v1/things/one?text=two", "text", "given by the path"),
        ("GET /v1/nested/a/colours/1?nested.displayName=b", "nested.displayName", "given by the path"),
        ("PATCH /v1/things/1?thing.displayName=x", "thing.displayName", "belongs into the body"),
        ("POST /v1/things?text=x", "text", "in the body"),
    ] {
        let reply = edge.request(request, "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (400, "INVALID_REQUEST"), "{request}");
        let (name, description) = reply.violation();
        assert!(name == field && description.contains(text), "{request}: {name}: {description}");
    }
    assert!(edge.backend.received().is_empty());
}

#[tokio::test]
async fn a_whole_body_is_the_message() {
    let edge = Edge::echo().await;
    let message = json!({
        "text": "ü", "number": 1, "bigNumber": "2", "switch": true, "data": "+/8=", "colour": "COLOUR_RED",
        "nested": {"displayName": "n", "deeper": {"displayName": "d"}}, "texts": ["a"], "children": [{"bigNumber": "3"}],
        "labels": {"k": "v"}, "byName": {"x": {"displayName": "y"}}, "at": "2030-01-31T12:00:00Z", "for": "1.500s",
        "mask": "displayName", "maybeNumber": 0, "anything": {"a": [1.0, null, {"b": true}]}, "perhaps": "", "right": "r",
    });
    assert_eq!(edge.received("POST /v1/things", &message.to_string()).await, message);
    // Proto names, numbers as strings and strings as numbers, null for unset.
    let lenient =
        r#"{"display_name": null, "big_number": 2, "number": "1", "texts": null}"#.replace("display_name", "text");
    assert_eq!(edge.received("POST /v1/things", &lenient).await, json!({"bigNumber": "2", "number": 1}));
}

#[tokio::test]
async fn a_missing_body_is_an_empty_message() {
    let edge = Edge::echo().await;
    assert_eq!(edge.received("POST /v1/things:reset", "").await, json!({}));
    assert_eq!(
        edge.received("POST /v1/things:reset\ncontent-length: 0\ncontent-type: text/plain", "").await,
        json!({})
    );
    assert_eq!(edge.received("POST /v1/things:reset", "{}").await, json!({}));
    assert_eq!(edge.received("PATCH /v1/things/1", "").await, json!({"thing": {"id": "1"}}));
}

#[tokio::test]
async fn a_body_can_map_to_one_field_of_any_type() {
    let edge = Edge::echo().await;
    assert_eq!(
        edge.received("PUT /v1/texts?number=3", r#"["a", "b"]"#).await,
        json!({"texts": ["a", "b"], "number": 3})
    );
    assert_eq!(edge.received("PUT /v1/texts", " [ ] ").await, json!({}));
    assert_eq!(edge.received("PUT /v1/number", "42").await, json!({"number": 42}));
    assert_eq!(edge.received("PUT /v1/number", "null").await, json!({}));
    for (request, body) in [
        ("PUT /v1/texts", r#"["a"], "number": 3"#),
        ("PUT /v1/texts", r#"["a"]}"#),
        ("PUT /v1/number", "1 2"),
        ("PUT /v1/number", r#"1, "text": "smuggled""#),
    ] {
        let reply = edge.request(request, body).await;
        assert_eq!((reply.status, reply.reason().as_str()), (400, "MALFORMED_BODY"), "{body}");
    }
    let reply = edge.request("PUT /v1/texts", r#"["a", 1]"#).await;
    assert_eq!((reply.status, reply.violation().0.as_str()), (400, "texts[1]"));
}

#[tokio::test]
async fn the_path_overrides_the_body() {
    let edge = Edge::echo().await;
    let message = edge.received("PATCH /v1/things/mine", r#"{"id": "yours", "displayName": "x"}"#).await;
    assert_eq!(message, json!({"thing": {"id": "mine", "displayName": "x"}, "updateMask": "displayName"}));
}

#[tokio::test]
async fn the_mask_of_a_patch_is_inferred_from_its_body() {
    let edge = Edge::echo().await;
    for (body, mask) in [
        (r#"{"displayName": "x"}"#, json!("displayName")),
        (r#"{"display_name": "x", "description": ""}"#, json!("displayName,description")),
        (r#"{"description": null}"#, json!("description")),
        (r#"{"labels": {"a": "b"}, "tags": []}"#, json!("labels,tags")),
        (
            r#"{"nested": {"displayName": "x", "deeper": {"bigNumber": 1}}}"#,
            json!("nested.displayName,nested.deeper.bigNumber"),
        ),
        (r#"{"nested": {}, "at": "2030-01-31T12:00:00Z"}"#, json!("nested,at")),
        // The path sets the id, and only the server sets the owner.
        (r#"{"id": "1", "ownerId": "me", "displayName": "x"}"#, json!("displayName")),
        (r#"{"id": "1", "ownerId": "me"}"#, json!(null)),
        ("{}", json!(null)),
    ] {
        let message = edge.received("PATCH /v1/things/1", body).await;
        let mut wanted: Vec<_> = mask.as_str().unwrap_or_default().split(',').collect();
        let mut got: Vec<_> = message["updateMask"].as_str().unwrap_or_default().split(',').collect();
        wanted.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, wanted, "{body}");
    }
}

#[tokio::test]
async fn an_explicit_mask_is_kept() {
    let edge = Edge::echo().await;
    let body = r#"{"displayName": "x", "description": "y"}"#;
    for mask in ["displayName", "display_name"] {
        let message = edge.received(&format!("PATCH /v1/things/1?updateMask={mask}&dryRun=true"), body).await;
        assert_eq!((&message["updateMask"], &message["dryRun"]), (&json!("displayName"), &json!(true)));
    }
}

#[tokio::test]
async fn a_route_without_body_refuses_one() {
    let edge = Edge::echo().await;
    for body in ["", "{}", " { } \n"] {
        assert_eq!(edge.request("DELETE /v1/things/1", body).await.status, 200, "{body}");
    }
    let reply = edge.request("DELETE /v1/things/1", r#"{"text": "2"}"#).await;
    assert_eq!((reply.status, reply.reason().as_str()), (400, "MALFORMED_BODY"));
    assert_eq!(edge.backend.received().len(), 3);
}

#[tokio::test]
async fn no_identity_header_of_a_client_reaches_a_service() {
    let edge = Edge::echo().await;
    let request = "GET /v1/things
        cookie: session=1
        x-forwarded-client-cert: URI=spiffe://drystone.local/service/auth
        x-forwarded-for: 1.2.3.4
        x-user-id: root
        x-user-roles: admin
        x-drystone-client-address: 1.2.3.4
        x-drystone-anything: at all
        grpc-metadata-x: y
        grpc-timeout: 5S
        grpc-encoding: gzip
        te: gzip";
    assert_eq!(edge.request(request, "").await.status, 200);
    let received = edge.backend.last();
    let mut names: Vec<_> = received.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    // The metadata of the call, such as the token, is added by the channel of the mesh.
    assert_eq!(names, ["content-type", "te"]);
    assert_eq!(received.headers["te"], "trailers");
}
