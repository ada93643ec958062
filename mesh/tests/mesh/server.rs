//! The server and the client stack against each other, over real sockets and real mutual TLS.

mod expiry;
mod health;
mod http2;
mod malformed_requests;
mod reflection;
mod responses;
mod support;
mod unread;

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use drystone::{
    auth::v1::{GetDiscoveryRequest, key_service_client::KeyServiceClient},
    user::v1::ProvisionUserRequest,
};
use drystone_mesh::{
    call::{Call, CallFields, Client, new_request_id},
    error::{Reason, reason_of},
    server::{ServerLimits, acceptor::AcceptLimits},
    telemetry::TraceContext,
};
use support::{TestServer, order};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt;

fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, Option<Reason>) {
    let status = answer.unwrap_err();
    (status.code(), reason_of(&status))
}

fn call_with(deadline: Option<Duration>, client: Client) -> Call {
    Call::new(CallFields {
        request_id: new_request_id(),
        trace: TraceContext::new_root(),
        deadline: deadline.map(|left| Instant::now() + left),
        caller: None,
        principal: None,
        authorization: None,
        client,
    })
}

#[tokio::test]
async fn deadline_request_id_and_trace_are_propagated() {
    let server = TestServer::new().await;
    let call = call_with(Some(Duration::from_secs(2)), Client::default());
    let answer = server.client("auth").look_up_for_sign_in(call.request(order("describe"))).await.unwrap();
    let seen = answer.into_inner().roles;
    assert_eq!(seen[0], call.fields().request_id.to_str().unwrap());
    assert_eq!(seen[1], call.fields().trace.trace_id().to_string());
    let left: u64 = seen[2].parse().unwrap();
    assert!(left > 0 && left < 2_000_000, "{left} us");
    assert_eq!(seen[3], "spiffe://drystone.local/service/auth");
}

#[tokio::test]
async fn client_metadata_is_trusted_only_from_entry_points() {
    let server = TestServer::new().await;
    let client = Client { address: "192.0.2.1".to_owned(), agent: "test".to_owned() };
    let call = call_with(None, client);
    let seen = server.client("auth").look_up_for_sign_in(call.request(order("describe"))).await.unwrap();
    assert_eq!(seen.into_inner().roles[4], "", "auth is no front proxy");
}

#[tokio::test]
async fn a_slow_handler_is_answered_deadline_exceeded() {
    let server = TestServer::new().await;
    // Without a `Call` the client enforces no deadline, so the server does.
    let mut request = Request::new(order("wait"));
    request.metadata_mut().insert("grpc-timeout", "150m".parse().unwrap());
    let (code, _) = refusal(server.client("auth").look_up_for_sign_in(request).await);
    assert_eq!(code, Code::DeadlineExceeded);
    // It says nothing about the service: the metric names whose deadline it was.
    let rendered = server.metrics.render();
    let labels = r#"service="user",method="LookUpForSignIn",set_by="#;
    assert!(rendered.contains(&format!(r#"drystone_deadlines_exceeded_total{{{labels}"caller"}} 1"#)), "{rendered}");
    assert!(!rendered.contains(&format!(r#"{labels}"server""#)), "{rendered}");

    let call = call_with(Some(Duration::from_millis(150)), Client::default());
    let answer = server.client("auth").look_up_for_sign_in(call.request(order("wait"))).await;
    assert_eq!(refusal(answer), (Code::DeadlineExceeded, Some(Reason::DeadlineExceeded)));
}

#[tokio::test]
async fn the_deadline_policy_overrides_the_server_defaults() {
    let server = TestServer::new().await;
    let mut client = KeyServiceClient::new(server.channel("edge", "user"));
    // The contract of GetDiscovery: 5 s where the caller asks for nothing, and never more than 10 s. The server allows more.
    let defaults = ServerLimits::default();
    assert!(defaults.default_deadline > Duration::from_secs(5) && defaults.max_deadline > Duration::from_secs(10));
    for (requested, max) in [(None, 5), (Some("1M"), 10), (Some("3S"), 3)] {
        // Without a `Call` the client sends no timeout but this one.
        let mut request = Request::new(GetDiscoveryRequest {});
        if let Some(requested) = requested {
            request.metadata_mut().insert("grpc-timeout", requested.parse().unwrap());
        }
        let left: u64 = client.get_discovery(request).await.unwrap().into_inner().issuer.parse().unwrap();
        let left = Duration::from_micros(left);
        // Less than 2 s pass until the handler sees the call.
        assert!(left <= Duration::from_secs(max) && left > Duration::from_secs(max - 2), "{requested:?}: {left:?}");
    }
}

#[tokio::test]
async fn a_call_after_its_deadline_is_not_sent() {
    let server = TestServer::new().await;
    let call = call_with(Some(Duration::ZERO), Client::default());
    let mut client = server.client("auth");
    let answer = client.look_up_for_sign_in(call.request(order("describe"))).await;
    assert_eq!(refusal(answer), (Code::DeadlineExceeded, Some(Reason::DeadlineExceeded)));
    // Each call that arrives is counted, so a count of one shows that the first was not sent.
    client.look_up_for_sign_in(order("describe")).await.unwrap();
    let metrics = server.metrics.render();
    let calls =
        metrics.lines().filter(|line| line.starts_with("drystone_calls_total") && line.contains("LookUpForSignIn"));
    let calls: Vec<&str> = calls.collect();
    assert!(calls.len() == 1 && calls[0].ends_with(" 1"), "{calls:?}");
}

#[tokio::test]
async fn a_malformed_timeout_is_rejected() {
    let server = TestServer::new().await;
    let mut request = Request::new(order("describe"));
    request.metadata_mut().insert("grpc-timeout", "1 fortnight".parse().unwrap());
    let answer = server.client("auth").look_up_for_sign_in(request).await;
    assert_eq!(refusal(answer), (Code::InvalidArgument, Some(Reason::MalformedTimeout)));
}

#[tokio::test]
async fn a_panicking_handler_fails_only_its_call() {
    let server = TestServer::new().await;
    let mut client = server.client("auth");
    let panicked = client.look_up_for_sign_in(order("panic")).await.unwrap_err();
    assert_eq!((panicked.code(), reason_of(&panicked)), (Code::Internal, Some(Reason::Internal)));
    assert!(!panicked.message().contains("as requested"), "what went wrong inside stays inside");
    client.look_up_for_sign_in(order("describe")).await.unwrap();
}

#[tokio::test]
async fn calls_over_the_limit_are_answered_overloaded_with_a_retry_delay() {
    let server = TestServer::with(|limits| ServerLimits { max_in_flight: 1, ..limits }).await;
    let mut client = server.client("auth");
    let mut first = client.clone();
    let first = tokio::spawn(async move { first.look_up_for_sign_in(order("wait")).await });
    server.handlers.waiting.notified().await;

    let status = client.look_up_for_sign_in(order("describe")).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::ResourceExhausted, Some(Reason::Overloaded)));
    assert!(status.get_details_retry_info().and_then(|info| info.retry_delay).is_some());

    server.handlers.release.notify_one();
    first.await.unwrap().unwrap();
    client.look_up_for_sign_in(order("describe")).await.unwrap();
}

#[tokio::test]
async fn a_workload_that_uses_up_its_share_costs_no_other_workload_a_call() {
    let server = TestServer::with(|limits| ServerLimits { max_in_flight_per_workload: 4, ..limits }).await;
    let client = server.client("auth");
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.look_up_for_sign_in(order("wait")).await })
        })
        .collect();
    until_in_flight(&server, 4).await;

    let status = client.clone().look_up_for_sign_in(order("describe")).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::ResourceExhausted, Some(Reason::Overloaded)));
    assert!(status.get_details_retry_info().and_then(|info| info.retry_delay).is_some());
    assert!(status.message().contains("the calling workload has too many"), "{}", status.message());
    // Another connection of the same workload has no share of its own.
    let mut second = server.client("auth");
    assert_eq!(refusal(second.look_up_for_sign_in(order("describe")).await).1, Some(Reason::Overloaded));
    let mut other = KeyServiceClient::new(server.channel("edge", "user"));
    other.get_discovery(GetDiscoveryRequest {}).await.unwrap();

    let rendered = server.metrics.render();
    let refused = r#"drystone_server_refused_total{service="user",caller="auth",limit="workload"} 2"#;
    assert!(rendered.contains(refused), "{rendered}");
    assert!(rendered.contains(r#"drystone_server_concurrency_limit{service="user"} 1024"#), "{rendered}");
    release_all(&server, waiting).await;
    client.clone().look_up_for_sign_in(order("describe")).await.unwrap();
}

#[tokio::test]
async fn a_workload_within_its_part_is_served_by_a_full_server() {
    let server = TestServer::with(|limits| ServerLimits { max_in_flight: 200, ..limits }).await;
    let client = server.client("auth");
    let mut waiting = Vec::new();
    let mut refused = 0;
    // More than the server takes of one workload.
    for _ in 0..200 {
        let mut client = client.clone();
        let mut call = tokio::spawn(async move { client.look_up_for_sign_in(order("wait")).await });
        tokio::select! {
            () = server.handlers.waiting.notified() => waiting.push(call),
            answer = &mut call => {
                assert_eq!(refusal(answer.unwrap()).1, Some(Reason::Overloaded));
                refused += 1;
            }
        }
    }
    assert!(waiting.len() >= 150 && refused > 0, "{} of 200 were served", waiting.len());
    let mut other = KeyServiceClient::new(server.channel("edge", "user"));
    other.get_discovery(GetDiscoveryRequest {}).await.unwrap();
    release_all(&server, waiting).await;
}

#[tokio::test]
async fn connections_over_the_limit_of_an_address_are_refused_and_counted() {
    let server = TestServer::with(|limits| {
        let accept = AcceptLimits { max_connections_per_address: 1, ..limits.accept };
        ServerLimits { accept, ..limits }
    })
    .await;
    let mut first = server.client("auth");
    first.look_up_for_sign_in(order("describe")).await.unwrap();
    let mut second = KeyServiceClient::new(server.channel("edge", "user"));
    assert_eq!(refusal(second.get_discovery(GetDiscoveryRequest {}).await).0, Code::Unavailable);
    first.look_up_for_sign_in(order("describe")).await.unwrap();
    let rendered = server.metrics.render();
    let refused = r#"drystone_handshakes_refused_total{service="user",reason="address_connections"}"#;
    assert!(rendered.contains(refused), "{rendered}");
    assert!(rendered.contains(r#"drystone_server_connections{service="user"} 1"#), "{rendered}");
}

/// Waits until the server has so many calls in flight.
async fn until_in_flight(server: &TestServer, calls: usize) {
    let line = format!(r#"drystone_server_in_flight{{service="user"}} {calls}"#);
    while !server.metrics.render().lines().any(|rendered| rendered == line) {
        tokio::task::yield_now().await;
    }
}

/// Releases waiting calls, which all succeed.
async fn release_all<T>(server: &TestServer, waiting: Vec<JoinHandle<Result<T, Status>>>) {
    for waiting in waiting {
        while !waiting.is_finished() {
            server.handlers.release.notify_waiters();
            tokio::task::yield_now().await;
        }
        waiting.await.unwrap().map(drop).unwrap();
    }
}

#[tokio::test]
async fn a_path_without_a_rule_is_denied_for_every_caller() {
    let server = TestServer::new().await;
    let mut client = tonic::client::Grpc::new(server.channel("operator", "user"));
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/drystone.user.v1.UserService/DropEverything");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let answer = client.unary(Request::new(()), path, codec).await;
    assert_eq!(refusal(answer), (Code::Unimplemented, Some(Reason::MethodUnknown)));
    assert!(server.metrics.render().contains("part=\"method\""), "{}", server.metrics.render());
}

#[tokio::test]
async fn an_invalid_message_never_reaches_the_handler() {
    let server = TestServer::new().await;
    let status = server.client("auth").provision_user(ProvisionUserRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::InvalidArgument, Some(Reason::InvalidRequest)));
    let violations = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["user_id", "email", "display_name"]);
}

/// A service of a newer release may answer values that an older contract does not allow.
#[tokio::test]
async fn a_client_accepts_a_response_that_violates_the_contract() {
    let server = TestServer::new().await;
    let request = ProvisionUserRequest {
        user_id: uuid::Uuid::now_v7().to_string(),
        email: "ada@example.com".to_owned(),
        display_name: "x".repeat(101),
    };
    let user = server.client("auth").provision_user(request).await.unwrap().into_inner();
    assert_eq!(user.display_name, "x".repeat(202), "the contract allows 200 characters");
}

#[tokio::test]
async fn a_service_with_another_identity_is_not_called() {
    let server = TestServer::new().await;
    // The server has a valid certificate of the mesh, but for the workload `user`.
    let mut impostor = HealthClient::new(server.channel("auth", "session"));
    assert_eq!(refusal(impostor.check(HealthCheckRequest::default()).await).0, Code::Unavailable);
}

#[tokio::test]
async fn an_unreachable_service_is_unavailable() {
    let server = TestServer::new().await;
    let channel = server.channel("auth", "user");
    server.stop.cancel();
    server.running.await.unwrap().unwrap();
    let mut client = drystone::user::v1::user_service_client::UserServiceClient::new(channel);
    let status = client.look_up_for_sign_in(order("describe")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("`user` is unavailable"), "{}", status.message());
}

#[tokio::test]
async fn a_stopping_server_completes_calls_and_ends_streams() {
    let server = TestServer::new().await;
    let mut client = server.client("auth");
    let running = tokio::spawn(async move { client.look_up_for_sign_in(order("wait")).await });
    server.handlers.waiting.notified().await;
    let mut watch = HealthClient::new(server.channel("edge", "user"));
    let mut states = watch.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    server.stop.cancel();
    loop {
        match states.message().await {
            Ok(Some(state)) => assert_eq!(state.status(), ServingStatus::NotServing),
            Ok(None) => break,
            Err(end) => {
                assert_eq!(end.code(), Code::Unavailable);
                break;
            }
        }
    }
    assert!(TcpStream::connect(server.address).is_err(), "nothing new is accepted");
    assert!(!server.running.is_finished(), "a running call is waited for");
    server.handlers.release.notify_one();
    running.await.unwrap().unwrap();
    server.running.await.unwrap().unwrap();
}
