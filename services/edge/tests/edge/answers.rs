//! What comes back.

use std::{sync::Arc, time::Duration};

use drystone_edge::Config;
use drystone_mesh::{
    config::ConfigDuration,
    error::{Error, Reason},
};
use drystone_tests::fixture;
use prost_reflect::{DynamicMessage, Value};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    Edge,
    backend::{FakeBackend, echo, set},
    failing,
};

#[tokio::test]
async fn every_answer_has_the_same_headers() {
    let edge = Edge::echo().await;
    for request in ["GET /v1/things", "GET /v1/nothing", "OPTIONS /v1/things", "GET /health", "GET /v1/numbers/x"] {
        let reply = edge.ask(request, "").await;
        assert_eq!(reply.header("cache-control"), "no-store", "{request}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{request}");
        assert_eq!(reply.header("x-request-id").len(), 32, "{request}");
        let own = edge.ask(&format!("{request}\nx-request-id: my-own.id_1"), "").await;
        assert_eq!(own.header("x-request-id"), "my-own.id_1", "{request}");
    }
    let invalid = edge.ask("GET /v1/things\nx-request-id: with space", "").await;
    assert_eq!(invalid.header("x-request-id").len(), 32);
}

#[tokio::test]
async fn fields_of_default_value_are_written() {
    let edge = Edge::echo().await;
    let reply = edge.ask("GET /v1/things", "").await;
    let json = reply.json();
    assert_eq!((&json["text"], &json["texts"], &json["bigNumber"]), (&json!(""), &json!([]), &json!("0")));
    assert_eq!((&json["colour"], &json["labels"]), (&json!("COLOUR_UNSPECIFIED"), &json!({})));
    assert_eq!(edge.ask("DELETE /v1/things/1", "").await.json(), json!({}));
}

#[tokio::test]
async fn an_answer_is_the_message_that_the_rpc_returns() {
    let thing = FakeBackend::new(Arc::new(|asked| {
        let thing = asked.message.get_field_by_name("thing").unwrap().as_message().cloned().unwrap();
        Box::pin(async move { Ok(thing) })
    }));
    let edge = Edge::over(thing, Config::default()).await;
    let thing = edge.ask("PATCH /v1/things/1", r#"{"displayName": "x"}"#).await.json();
    assert_eq!((&thing["id"], &thing["displayName"], &thing["tags"]), (&json!("1"), &json!("x"), &json!([])));
}

#[tokio::test]
async fn what_anybody_may_keep_says_for_how_long_and_any_origin_may_read_it() {
    let edge = Edge::echo().await;
    let kept = edge.ask("GET /v1/things/special\norigin: https://app.example", "").await;
    assert_eq!(kept.header("cache-control"), "public, max-age=60");
    assert_eq!(kept.header("access-control-allow-origin"), "*");
    let head = edge.ask("HEAD /v1/things/special", "").await;
    assert_eq!(head.header("cache-control"), "public, max-age=60");

    let own = edge.ask("GET /v1/things/one\norigin: https://app.example", "").await;
    assert_eq!(own.header("cache-control"), "no-store");
    assert!(own.headers.get("access-control-allow-origin").is_none());
    let failed = Edge::over(crate::failing(Status::not_found("none")), Config::default()).await;
    let failed = failed.ask("GET /v1/things/special", "").await;
    assert_eq!((failed.status, failed.header("cache-control")), (404, "no-store"));
}

#[tokio::test]
async fn a_service_error_keeps_its_reason_and_names_fields_as_the_client_does() {
    let mut details = ErrorDetails::new();
    details
        .set_error_info("INVALID_REQUEST", Reason::DOMAIN, std::collections::HashMap::new())
        .add_bad_request_violation("thing.display_name", "is too long")
        .add_bad_request_violation("update_mask", "names nothing");
    let message = "thing.display_name: is too long; update_mask: names nothing";
    let edge =
        Edge::over(failing(Status::with_error_details(Code::InvalidArgument, message, details)), Config::default())
            .await;

    let reply = edge.ask("PATCH /v1/things/1", "{}").await;
    assert_eq!((reply.status, reply.reason().as_str()), (400, "INVALID_REQUEST"));
    assert_eq!(reply.violation(), ("displayName".to_owned(), "is too long".to_owned()));
    assert_eq!(reply.json()["message"], "displayName: is too long; updateMask: names nothing");
    assert_eq!(reply.json()["code"], 3);
}

#[tokio::test]
async fn reasons_become_statuses_and_headers() {
    for (error, status, header) in [
        (Error::new(Reason::EmailTaken, "taken"), 409, ("www-authenticate", "")),
        (Error::new(Reason::TokenMissing, "no token"), 401, ("www-authenticate", "Bearer")),
        (Error::new(Reason::Overloaded, "busy").retry_after(Duration::from_millis(2100)), 429, ("retry-after", "3")),
        (Error::new(Reason::PropertyNotFound, "none"), 404, ("retry-after", "")),
    ] {
        let text = error.to_string();
        let edge = Edge::over(failing(error.into()), Config::default()).await;
        let reply = edge.ask("GET /v1/things", "").await;
        assert_eq!((reply.status, reply.header(header.0)), (status, header.1), "{text}");
        assert_eq!(format!("{}: {}", reply.reason(), reply.json()["message"].as_str().unwrap()), text);
    }
}

#[tokio::test]
async fn what_went_wrong_inside_stays_inside() {
    for (status, http, reason) in [
        (Status::internal("secret detail"), 500, "INTERNAL"),
        (Status::unknown("secret detail"), 500, "INTERNAL"),
        (Status::data_loss("secret detail"), 500, "INTERNAL"),
        (Status::unavailable("tcp connect error: secret detail"), 503, "UNAVAILABLE"),
        (Error::new(Reason::CallerNotAllowed, "secret detail").into(), 500, "INTERNAL"),
        (Error::new(Reason::MethodUnknown, "secret detail").into(), 500, "INTERNAL"),
    ] {
        let edge = Edge::over(failing(status), Config::default()).await;
        let reply = edge.ask("GET /v1/things", "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (http, reason));
        assert!(!reply.text().contains("secret"), "{}", reply.text());
    }
}

#[tokio::test]
async fn an_answer_that_json_cannot_say_is_our_failure() {
    let far = FakeBackend::new(Arc::new(|asked| {
        Box::pin(async move {
            let mut answer = echo(&asked);
            let mut at = DynamicMessage::new(
                fixture::message("Everything").get_field_by_name("at").unwrap().kind().as_message().unwrap().clone(),
            );
            set(&mut at, "seconds", Value::I64(i64::MAX));
            set(&mut answer, "at", Value::Message(at));
            Ok(answer)
        })
    }));
    let edge = Edge::over(far, Config::default()).await;
    let reply = edge.ask("GET /v1/things", "").await;
    assert_eq!((reply.status, reply.reason().as_str()), (500, "INTERNAL"));
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_not_waited_for() {
    let never = || FakeBackend::new(Arc::new(|_| Box::pin(std::future::pending())));
    let config = Config { deadline: ConfigDuration::millis(50), ..Config::default() };
    let edge = Edge::over(never(), config).await;
    let reply = edge.ask("GET /v1/things", "").await;
    assert_eq!((reply.status, reply.reason().as_str()), (504, "DEADLINE_EXCEEDED"));

    let edge = Edge::over(never(), Config::default()).await;
    let reply = edge.ask("GET /v1/things\ngrpc-timeout: 20m", "").await;
    assert_eq!(reply.status, 504);
}

#[tokio::test]
async fn an_rpc_is_not_waited_for_longer_than_its_contract_says() {
    let never = FakeBackend::new(Arc::new(|_| Box::pin(std::future::pending())));
    // Longer than any test waits for an answer.
    let config = Config { deadline: ConfigDuration::seconds(3600), ..Config::default() };
    let edge = Edge::over(never, config).await;
    for request in ["GET /v1/hurry", "GET /v1/hurry\ngrpc-timeout: 1H"] {
        let reply = edge.ask(request, "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (504, "DEADLINE_EXCEEDED"), "{request}");
    }
}

#[tokio::test]
async fn a_fault_of_ours_costs_one_request() {
    let edge = Edge::over(
        FakeBackend::new(Arc::new(|asked| {
            assert!(!asked.message.has_field_by_name("text"), "told to");
            Box::pin(async move { Ok(echo(&asked)) })
        })),
        Config::default(),
    )
    .await;
    let mut client = edge.client().await;
    let reply = client.ask("GET /v1/things/panic", "").await;
    assert_eq!((reply.status, reply.reason().as_str()), (500, "INTERNAL"));
    assert_eq!(client.ask("GET /v1/things", "").await.status, 200);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let edge = Edge::echo().await;
    for request in ["GET /v1/things/one", "GET /v1/things/two", "GET /v1/numbers/x", "GET /nothing"] {
        edge.ask(request, "").await;
    }
    let text = edge.metrics.render();
    for line in [
        r#"drystone_edge_requests_total{route="GET /v1/things/{text}",status="200"} 2"#,
        r#"drystone_edge_requests_total{route="GET /v1/numbers/{number}",status="400"} 1"#,
        r#"drystone_edge_requests_total{route="none",status="404"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
