//! Responses.

use std::{sync::Arc, time::Duration};

use drystone::{contract::Factors, status::StepUp};
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
async fn every_response_has_the_common_headers() {
    let edge = Edge::echo().await;
    for request in ["GET /v1/things", "GET /v1/nothing", "OPTIONS /v1/things", "GET /health", "GET /v1/numbers/x"] {
        let reply = edge.request(request, "").await;
        assert_eq!(reply.header("cache-control"), "no-store", "{request}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{request}");
        assert_eq!(reply.header("x-request-id").len(), 32, "{request}");
        let own = edge.request(&format!("{request}\nx-request-id: my-own.id_1"), "").await;
        assert_eq!(own.header("x-request-id"), "my-own.id_1", "{request}");
    }
    let invalid = edge.request("GET /v1/things\nx-request-id: with space", "").await;
    assert_eq!(invalid.header("x-request-id").len(), 32);
}

#[tokio::test]
async fn fields_with_default_values_are_written() {
    let edge = Edge::echo().await;
    let reply = edge.request("GET /v1/things", "").await;
    let json = reply.json();
    assert_eq!((&json["text"], &json["texts"], &json["bigNumber"]), (&json!(""), &json!([]), &json!("0")));
    assert_eq!((&json["colour"], &json["labels"]), (&json!("COLOUR_UNSPECIFIED"), &json!({})));
    assert_eq!(edge.request("DELETE /v1/things/1", "").await.json(), json!({}));
}

#[tokio::test]
async fn a_response_is_the_message_that_the_rpc_returns() {
    let thing = FakeBackend::new(Arc::new(|call| {
        let thing = call.message.get_field_by_name("thing").unwrap().as_message().cloned().unwrap();
        Box::pin(async move { Ok(thing) })
    }));
    let edge = Edge::with_backend(thing, Config::default()).await;
    let thing = edge.request("PATCH /v1/things/1", r#"{"displayName": "x"}"#).await.json();
    assert_eq!((&thing["id"], &thing["displayName"], &thing["tags"]), (&json!("1"), &json!("x"), &json!([])));
}

#[tokio::test]
async fn public_responses_are_cacheable_and_readable_by_any_origin() {
    let edge = Edge::echo().await;
    let public = edge.request("GET /v1/things/special\norigin: https://app.example", "").await;
    assert_eq!(public.header("cache-control"), "public, max-age=60");
    assert_eq!(public.header("access-control-allow-origin"), "*");
    let head = edge.request("HEAD /v1/things/special", "").await;
    assert_eq!(head.header("cache-control"), "public, max-age=60");

    let private = edge.request("GET /v1/things/one\norigin: https://app.example", "").await;
    assert_eq!(private.header("cache-control"), "no-store");
    assert!(private.headers.get("access-control-allow-origin").is_none());
    let failed = Edge::with_backend(crate::failing(Status::not_found("none")), Config::default()).await;
    let failed = failed.request("GET /v1/things/special", "").await;
    assert_eq!((failed.status, failed.header("cache-control")), (404, "no-store"));
}

#[tokio::test]
async fn a_service_error_keeps_its_reason_and_names_fields_in_json() {
    let mut details = ErrorDetails::new();
    details
        .set_error_info("INVALID_REQUEST", Reason::DOMAIN, std::collections::HashMap::new())
        .add_bad_request_violation("thing.display_name", "is too long")
        .add_bad_request_violation("update_mask", "names nothing");
    let message = "thing.display_name: is too long; update_mask: names nothing";
    let edge = Edge::with_backend(
        failing(Status::with_error_details(Code::InvalidArgument, message, details)),
        Config::default(),
    )
    .await;

    let reply = edge.request("PATCH /v1/things/1", "{}").await;
    assert_eq!((reply.status, reply.reason().as_str()), (400, "INVALID_REQUEST"));
    assert_eq!(reply.violation(), ("displayName".to_owned(), "is too long".to_owned()));
    assert_eq!(reply.json()["message"], "displayName: is too long; updateMask: names nothing");
    assert_eq!(reply.json()["code"], 3);
}

#[tokio::test]
async fn reasons_decide_http_status_and_headers() {
    for (error, status, header) in [
        (Error::new(Reason::EmailTaken, "taken"), 409, ("www-authenticate", "")),
        (Error::new(Reason::TokenMissing, "no token"), 401, ("www-authenticate", "Bearer")),
        (Error::new(Reason::Overloaded, "busy").retry_after(Duration::from_millis(2100)), 429, ("retry-after", "3")),
        (Error::new(Reason::PropertyNotFound, "none"), 404, ("retry-after", "")),
    ] {
        let text = error.to_string();
        let edge = Edge::with_backend(failing(error.into()), Config::default()).await;
        let reply = edge.request("GET /v1/things", "").await;
        assert_eq!((reply.status, reply.header(header.0)), (status, header.1), "{text}");
        assert_eq!(format!("{}: {}", reply.reason(), reply.json()["message"].as_str().unwrap()), text);
    }
}

#[tokio::test]
async fn a_step_up_challenge_says_what_the_call_requires() {
    let challenge =
        |parameters: &str| format!("Bearer error=\"insufficient_user_authentication\", error_description={parameters}");
    let recent = "\"a more recent authentication is required\"";
    let ten_minutes = Some(Duration::from_mins(10));
    let ours = [
        (
            Error::new(Reason::ReauthenticationRequired, "again").step_up(StepUp::new(ten_minutes, None)),
            challenge(&format!("{recent}, max_age=\"600\"")),
            json!({"max_age": "600"}),
        ),
        (
            Error::new(Reason::FactorsRequired, "a passkey")
                .step_up(StepUp::new(ten_minutes, Some(Factors::PhishingResistant))),
            challenge("\"an authentication with other factors is required\", acr_values=\"phr\", max_age=\"600\""),
            json!({"acr_values": "phr", "max_age": "600"}),
        ),
    ];
    for (error, challenge, metadata) in ours {
        let edge = Edge::with_backend(failing(error.into()), Config::default()).await;
        let reply = edge.request("GET /v1/things", "").await;
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, &*challenge));
        assert_eq!(reply.detail("ErrorInfo")["metadata"], metadata);
    }

    // What a service writes into its metadata and message does not reach the header unchecked.
    let forged = [("max_age".to_owned(), "1\", scope=\"all".to_owned()), ("acr_values".to_owned(), "gold".to_owned())];
    let mut details = ErrorDetails::new();
    details.set_error_info("REAUTHENTICATION_REQUIRED", Reason::DOMAIN, forged);
    let status = Status::with_error_details(Code::Unauthenticated, "again\", scope=\"all", details);
    let edge = Edge::with_backend(failing(status), Config::default()).await;
    let reply = edge.request("GET /v1/things", "").await;
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, &*challenge(recent)));
}

#[tokio::test]
async fn internal_errors_are_not_shown_to_clients() {
    for (status, http, reason) in [
        (Status::internal("secret detail"), 500, "INTERNAL"),
        (Status::unknown("secret detail"), 500, "INTERNAL"),
        (Status::data_loss("secret detail"), 500, "INTERNAL"),
        (Status::unavailable("tcp connect error: secret detail"), 503, "UNAVAILABLE"),
        (Error::new(Reason::CallerNotAllowed, "secret detail").into(), 500, "INTERNAL"),
        (Error::new(Reason::MethodUnknown, "secret detail").into(), 500, "INTERNAL"),
    ] {
        let edge = Edge::with_backend(failing(status), Config::default()).await;
        let reply = edge.request("GET /v1/things", "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (http, reason));
        assert!(!reply.text().contains("secret"), "{}", reply.text());
    }
}

#[tokio::test]
async fn a_message_that_json_cannot_represent_is_an_internal_error() {
    let far = FakeBackend::new(Arc::new(|call| {
        Box::pin(async move {
            let mut output = echo(&call);
            let mut at = DynamicMessage::new(
                fixture::message("Everything").get_field_by_name("at").unwrap().kind().as_message().unwrap().clone(),
            );
            set(&mut at, "seconds", Value::I64(i64::MAX));
            set(&mut output, "at", Value::Message(at));
            Ok(output)
        })
    }));
    let edge = Edge::with_backend(far, Config::default()).await;
    let reply = edge.request("GET /v1/things", "").await;
    assert_eq!((reply.status, reply.reason().as_str()), (500, "INTERNAL"));
}

#[tokio::test]
async fn a_service_that_does_not_respond_times_out() {
    let never = || FakeBackend::new(Arc::new(|_| Box::pin(std::future::pending())));
    let config = Config { deadline: ConfigDuration::millis(50), ..Config::default() };
    let edge = Edge::with_backend(never(), config).await;
    let reply = edge.request("GET /v1/things", "").await;
    assert_eq!((reply.status, reply.reason().as_str()), (504, "DEADLINE_EXCEEDED"));
    let line = r#"drystone_edge_deadlines_exceeded_total{route="GET /v1/things",set_by="server"} 1"#;
    assert!(edge.metrics.render().contains(line), "{}", edge.metrics.render());

    let edge = Edge::with_backend(never(), Config::default()).await;
    let reply = edge.request("GET /v1/things\ngrpc-timeout: 20m", "").await;
    assert_eq!(reply.status, 504);
    let line = r#"drystone_edge_deadlines_exceeded_total{route="GET /v1/things",set_by="caller"} 1"#;
    assert!(edge.metrics.render().contains(line), "{}", edge.metrics.render());
}

#[tokio::test]
async fn an_rpc_times_out_at_the_deadline_of_its_contract() {
    let never = FakeBackend::new(Arc::new(|_| Box::pin(std::future::pending())));
    // Longer than any test waits for a response.
    let config = Config { deadline: ConfigDuration::seconds(3600), ..Config::default() };
    let edge = Edge::with_backend(never, config).await;
    for request in ["GET /v1/hurry", "GET /v1/hurry\ngrpc-timeout: 1H"] {
        let reply = edge.request(request, "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (504, "DEADLINE_EXCEEDED"), "{request}");
    }
}

#[tokio::test]
async fn a_panic_fails_one_request() {
    let edge = Edge::with_backend(
        FakeBackend::new(Arc::new(|call| {
            assert!(!call.message.has_field_by_name("text"), "a panic of the test");
            Box::pin(async move { Ok(echo(&call)) })
        })),
        Config::default(),
    )
    .await;
    let mut client = edge.client().await;
    let reply = client.request("GET /v1/things/panic", "").await;
    assert_eq!((reply.status, reply.reason().as_str()), (500, "INTERNAL"));
    assert_eq!(client.request("GET /v1/things", "").await.status, 200);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let edge = Edge::echo().await;
    for request in ["GET /v1/things/one", "GET /v1/things/two", "GET /v1/numbers/x", "GET /nothing"] {
        edge.request(request, "").await;
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
