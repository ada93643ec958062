//! Who may call what: every RPC of the contracts, as every workload there is, and as some that there should not be.
//!
//! The table is made from the contracts, so that a new RPC is in it from the day on which it is written.

use drystone::Reason;
use drystone_tests::{
    Mesh,
    certs::{Authority, Credentials, Leaf, TRUST_DOMAIN},
    contracts,
    grpc::{assert_refused, reason},
    matrix::{Outcome, assert_allowed, assert_rules_hold, call},
    methods, services, wait, workloads,
};
use tonic::{Code, Status};

/// An RPC that no contract of ours describes and that every server offers.
struct BuiltIn {
    path: &'static str,
    is_stream: bool,
    /// Whether others than the operator may call it.
    is_for_all: bool,
}

const BUILT_IN: [BuiltIn; 5] = [
    BuiltIn { path: "/grpc.health.v1.Health/Check", is_stream: false, is_for_all: true },
    BuiltIn { path: "/grpc.health.v1.Health/List", is_stream: false, is_for_all: true },
    BuiltIn { path: "/grpc.health.v1.Health/Watch", is_stream: true, is_for_all: true },
    BuiltIn { path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", is_stream: true, is_for_all: false },
    BuiltIn {
        path: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        is_stream: true,
        is_for_all: false,
    },
];

#[tokio::test]
async fn each_rpc_can_be_called_by_whom_its_rule_lists_and_by_nobody_else() {
    let Outcome { allowed, denied } = assert_rules_hold(Mesh::shared(), contracts()).await;
    assert_eq!(allowed + denied, methods().len() * workloads().len());
    assert!(allowed > 40 && denied > 40, "the table is smaller than it can be: {allowed} allowed, {denied} denied");
}

#[tokio::test]
async fn what_every_server_offers_has_rules_too() {
    let mesh = Mesh::shared();
    for service in services() {
        for workload in workloads() {
            let channel = mesh.channel(service, workload);
            for BuiltIn { path, is_stream, is_for_all } in BUILT_IN {
                let answer = call(channel.clone(), path, is_stream).await;
                if is_for_all || workload == "operator" {
                    answer.unwrap_or_else(|status| panic!("{path} as {workload}: {status:?}"));
                } else {
                    assert_refused(answer, Reason::CallerNotAllowed);
                }
            }
            for path in ["/drystone.user.v1.UserService/DropAllTables", "/", "/x/y"] {
                assert_refused(call(channel.clone(), path, false).await, Reason::MethodUnknown);
            }
        }
    }
}

#[tokio::test]
async fn a_service_answers_for_its_own_rpcs_alone() {
    let mesh = Mesh::shared();
    for service in services() {
        let channel = mesh.channel(service, "operator");
        for method in methods().iter().filter(|method| *method.workload != *service) {
            assert_refused(call(channel.clone(), &method.path, false).await, Reason::MethodUnknown);
        }
    }
}

#[tokio::test]
async fn a_workload_that_no_rule_names_may_call_only_what_any_may() {
    let mesh = Mesh::shared();
    let authority = mesh.certificates().authority();
    // A name that nobody knows; and valid identities that only look like one of a known name.
    let strangers = [
        "service/stranger",
        "service/Auth",
        "service/auth.",
        "service/outside",
        "service/auth/user",
        "auth",
        "ns/default/sa/auth",
        "service",
    ];
    for path in strangers {
        let leaf = Leaf { uris: vec![format!("spiffe://{TRUST_DOMAIN}/{path}")], ..Leaf::of(TRUST_DOMAIN, "stranger") };
        for service in services() {
            let channel = mesh.channel_with(service, Some(authority.issue(&leaf)));
            for method in methods().iter().filter(|method| *method.workload == *service) {
                let is_stream = method.client_streaming || method.server_streaming;
                let answer = call(channel.clone(), &method.path, is_stream).await;
                // `any` is each workload of our trust domain, whether a contract names it or not.
                let is_workload = path.strip_prefix("service/").is_some_and(|name| !name.contains('/'));
                if is_workload && method.callers.iter().any(|caller| caller == "any") {
                    assert_allowed(method, path, answer);
                    continue;
                }
                let code = answer.as_ref().err().map(Status::code);
                assert_eq!(code, Some(Code::PermissionDenied), "{} as {path}: {answer:?}", method.path);
                assert_refused(answer, Reason::CallerNotAllowed);
            }
        }
    }
}

/// Somebody whom no server speaks with, and the reason under which the attempt is counted.
struct Intruder {
    name: &'static str,
    counted_as: &'static str,
    credentials: Option<Credentials>,
    /// Whether every RPC is tried, or one a service.
    everywhere: bool,
}

fn intruders(ours: &Authority) -> Vec<Intruder> {
    let foreign = Authority::foreign();
    let auth = || Leaf::of(TRUST_DOMAIN, "auth");
    let everywhere = |name, counted_as, credentials| Intruder { name, counted_as, credentials, everywhere: true };
    let invalid = |name, leaf: &Leaf| {
        let (counted_as, credentials) = ("no_svid", Some(ours.issue(leaf)));
        Intruder { name, counted_as, credentials, everywhere: false }
    };
    let uris = |uris: &[&str]| Leaf { uris: uris.iter().map(ToString::to_string).collect(), ..auth() };
    let id = format!("spiffe://{TRUST_DOMAIN}/service/auth");
    vec![
        everywhere(
            "another trust domain",
            "untrusted_domain",
            Some(ours.issue(&Leaf::of("elsewhere.example", "auth"))),
        ),
        everywhere("another CA", "unknown_issuer", Some(foreign.issue(&auth()))),
        everywhere("expired", "out_of_time", Some(ours.issue(&Leaf { validity: (-7200, -3600), ..auth() }))),
        everywhere("no certificate", "no_certificate", None),
        Intruder {
            name: "not yet valid",
            counted_as: "out_of_time",
            credentials: Some(ours.issue(&Leaf { validity: (3600, 7200), ..auth() })),
            everywhere: false,
        },
        invalid("no URI", &uris(&[])),
        invalid("two IDs", &uris(&[&id, &format!("spiffe://{TRUST_DOMAIN}/service/user")])),
        invalid("an ID and another URI", &uris(&[&id, "https://example.com"])),
        invalid("no SPIFFE ID", &uris(&[&format!("https://{TRUST_DOMAIN}/service/auth")])),
        invalid("the ID of the trust domain itself", &uris(&[&format!("spiffe://{TRUST_DOMAIN}")])),
        invalid("a query", &uris(&[&format!("{id}?x=1")])),
        invalid("an encoded path", &uris(&[&format!("spiffe://{TRUST_DOMAIN}/service/%61uth")])),
        invalid("an empty segment", &uris(&[&format!("spiffe://{TRUST_DOMAIN}/service//auth")])),
        invalid("a relative segment", &uris(&[&format!("spiffe://{TRUST_DOMAIN}/service/user/../auth")])),
        invalid("the certificate of a CA", &Leaf { is_ca: true, ..auth() }),
        invalid("a certificate for servers only", &Leaf { for_clients: false, ..auth() }),
    ]
}

/// Under TLS 1.3 a refused client sees a successful handshake first and an error later, so that it is the server's
/// counter that tells.
#[tokio::test]
async fn nobody_without_a_valid_certificate_gets_as_far_as_a_call() {
    // A mesh of its own: nothing else may count here.
    let mesh = Mesh::start();
    let ours = mesh.certificates().authority();
    for Intruder { name, counted_as, credentials, everywhere } in intruders(&ours) {
        for service in services() {
            let labels = [("service", service), ("reason", counted_as)];
            let count = async || mesh.metrics().await.sum("drystone_handshakes_refused_total", &labels);
            let before = count().await;
            let methods: Vec<_> = methods().iter().filter(|method| *method.workload == *service).collect();
            let tried = &methods[..if everywhere { methods.len() } else { 1 }];
            for method in tried {
                let channel = mesh.channel_with(service, credentials.clone());
                let status = call(channel, &method.path, false).await.expect_err("it was let in");
                assert!(reason(&status).is_none(), "{name} got as far as {}: {status:?}", method.path);
            }
            #[expect(clippy::cast_precision_loss, reason = "there are not that many RPCs")]
            let expected = before + tried.len() as f64;
            let what = format!("{service} counts {expected} refusals of `{counted_as}` ({name})");
            wait::until(&what, async || (count().await >= expected).then_some(())).await;
            assert!((count().await - expected).abs() < f64::EPSILON, "more than {what}");
        }
    }
    // Nobody has been called, and everybody is well.
    let metrics = mesh.metrics().await;
    assert!(metrics.sum("drystone_denials_total", &[]) < 0.5);
    for service in services() {
        let answer = call(mesh.channel(service, "operator"), "/grpc.health.v1.Health/Check", false).await;
        answer.unwrap_or_else(|status| panic!("{service}: {status:?}"));
    }
}
