//! Whatever a handler answers, its caller receives a status, and other calls on the connection are not affected.

use drystone::status::MAX_SIZE;
use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::StatusExt;

use super::support::{TestServer, order};

const CASES: usize = 200;

/// Metadata of up to 60 KB.
fn metadata() -> impl Strategy<Value = MetadataMap> {
    vec("[ -~]{0,3000}", 0..20).prop_map(|values| {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append("x-handler", value.parse().unwrap());
        }
        metadata
    })
}

fn status() -> impl Strategy<Value = Status> {
    let message = prop_oneof!["\\PC{0,200}", "\\PC{0,30000}", "[ -~]{6000}", "\\x00{0,4000}"];
    let details = vec(any::<u8>(), 0..40_000);
    (1..17, message, details, metadata()).prop_map(|(code, message, details, metadata)| {
        Status::with_details_and_metadata(Code::from_i32(code), message, details.into(), metadata)
    })
}

#[tokio::test]
async fn any_answer_of_a_handler_is_delivered_and_ends_no_other_call() {
    let server = TestServer::new().await;
    let client = server.client("auth");
    let mut other = client.clone();
    let other = tokio::spawn(async move { other.look_up_for_sign_in(order("wait")).await });
    server.handlers.waiting.notified().await;

    let mut runner = TestRunner::deterministic();
    for _ in 0..CASES {
        let given = status().new_tree(&mut runner).unwrap().current();
        *server.handlers.outcome.lock().unwrap() = Some(Err(given.clone()));
        let received = client.clone().look_up_for_sign_in(order("outcome")).await.unwrap_err();
        assert_eq!(received.code(), given.code());
        let message = received.message().strip_suffix("...").unwrap_or(received.message());
        assert!(given.message().starts_with(message), "{received:?}");

        let given = metadata().new_tree(&mut runner).unwrap().current();
        *server.handlers.outcome.lock().unwrap() = Some(Ok(given));
        client.clone().look_up_for_sign_in(order("outcome")).await.unwrap();
    }

    server.handlers.release.notify_one();
    other.await.unwrap().expect("the connection is the same");
}

#[tokio::test]
async fn metadata_that_clients_accept_is_delivered_unchanged() {
    let server = TestServer::new().await;
    let value: MetadataValue<_> = "v".repeat(4_000).parse().unwrap();
    let mut metadata = MetadataMap::new();
    metadata.insert("x-handler", value.clone());
    *server.handlers.outcome.lock().unwrap() = Some(Ok(metadata.clone()));
    let response = server.client("auth").look_up_for_sign_in(order("outcome")).await.unwrap();
    assert_eq!(response.metadata().get("x-handler"), Some(&value));

    let given = Status::with_metadata(Code::NotFound, "not here", metadata);
    *server.handlers.outcome.lock().unwrap() = Some(Err(given));
    let status = server.client("auth").look_up_for_sign_in(order("outcome")).await.unwrap_err();
    assert_eq!((status.message(), status.metadata().get("x-handler")), ("not here", Some(&value)));
}

#[tokio::test]
async fn an_oversized_status_keeps_its_reason() {
    let server = TestServer::new().await;
    let violation = |index: usize| tonic_types::FieldViolation::new(format!("labels[{index}]"), "x".repeat(300));
    let mut details = tonic_types::ErrorDetails::new();
    details.set_error_info("INVALID_REQUEST", "drystone", [("k".to_owned(), "v".repeat(MAX_SIZE))]);
    details.set_bad_request((0..100).map(violation).collect::<Vec<_>>());
    let given = Status::with_error_details(Code::InvalidArgument, "m".repeat(20_000), details);
    *server.handlers.outcome.lock().unwrap() = Some(Err(given));
    let status = server.client("auth").look_up_for_sign_in(order("outcome")).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "INVALID_REQUEST");
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "labels[0]");
}
