//! Contracts that cannot be served stop the start, and say why.

use drystone::contract::{Idempotency, Method, Subject};
use drystone_edge::{Config, Contract, RequestLimit, Service, StartError};
use drystone_mesh::{health::Health, telemetry::Metrics};

use crate::{backend::FakeBackend, fixture};

const RPC: Method = Method {
    path: "/drystone.fixture.v1.S/Do",
    callers: &["outside"],
    subject: Subject::None,
    permission: None,
    max_auth_age: None,
    audited: false,
    idempotency: Idempotency::Unknown,
    client_streaming: false,
    server_streaming: false,
    rest: &[],
};

fn start(contract: Contract) -> Result<Service<FakeBackend>, StartError> {
    let (connect, limit) = (|_: &str| Ok(FakeBackend::echo()), RequestLimit::none());
    Service::over(contract, connect, &Health::new(), &Metrics::new(), Config::default(), limit)
}

/// The fault of a contract whose one RPC has this option.
fn fault(http: &str, methods: &'static [Method]) -> String {
    let proto = format!(
        "syntax = \"proto3\";
        package drystone.fixture.v1;
        import \"google/api/annotations.proto\";
        service S {{
          rpc Do(M) returns (M) {{ option (google.api.http) = {{{http}}}; }}
        }}
        message M {{ string text = 1; M inner = 2; repeated string texts = 3; map<string, string> labels = 4; }}"
    );
    let set = fixture::compile(&proto).unwrap().leak();
    match start(Contract { descriptor_set: set, methods }) {
        Err(error) => error.to_string(),
        Ok(_) => "none".to_owned(),
    }
}

#[test]
fn this_house_can_be_served() {
    assert!(start(Contract::drystone()).is_ok());
}

#[test]
fn each_fault_names_the_rpc_and_what_is_wrong() {
    for (http, word) in [
        ("get: \"/v1/x\"", "none"),
        ("get: \"v1/x\"", "does not begin with `/`"),
        ("get: \"/v1/{text\"", "does not close"),
        ("get: \"/v1/{nope}\"", "the field `nope` from the path, which is not there"),
        ("get: \"/v1/{inner}\"", "no single value"),
        ("get: \"/v1/{texts}\"", "no single value"),
        ("get: \"/v1/{labels}\"", "no single value"),
        ("get: \"/v1/{texts.x}\"", "not there"),
        ("get: \"/v1/{inner.inner.text}\"", "none"),
        ("post: \"/v1/x\" body: \"nope\"", "its body into the unknown field `nope`"),
        ("get: \"/v1/x\" response_body: \"nope\"", "answers the unknown field `nope`"),
        ("body: \"*\"", "without method and path"),
        ("custom: {kind: \"BAD KIND\" path: \"/v1/x\"}", "HTTP does not have"),
        ("get: \"/v1/x\" additional_bindings {get: \"/v1/x\"}", "is taken by /drystone.fixture.v1.S/Do"),
        ("get: \"/v1/{text}\" additional_bindings {get: \"/v1/{inner.text}\"}", "is taken by"),
        ("get: \"/health\"", "is taken by the health of the edge"),
    ] {
        let fault = fault(http, &[RPC]);
        assert!(fault.contains(word), "{http}: {fault}");
        assert!(fault == "none" || fault.contains("drystone.fixture.v1.S"), "{http}: {fault}");
    }
}

#[test]
fn only_what_the_rules_open_to_the_edge_is_served() {
    assert!(fault("get: \"/v1/x\"", &[]).contains("no access rule"));
    assert!(fault("get: \"/v1/x\"", &[Method { callers: &["auth"], ..RPC }]).contains("does not list `outside`"));
    assert!(fault("get: \"/v1/x\"", &[Method { server_streaming: true, ..RPC }]).contains("is a stream"));
}

#[test]
fn a_descriptor_set_that_is_none_is_refused() {
    for set in [&b"\xff\xff"[..], b""] {
        let error = start(Contract { descriptor_set: set, methods: &[] }).unwrap_err().to_string();
        assert!(error.starts_with("the descriptor set: "), "{error}");
    }
}
