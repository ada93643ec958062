//! The access matrix: every RPC is called as every workload, and with certificates that must be refused.
//!
//! The matrix is generated from the contracts, so it includes each new RPC.

use drystone::Reason;
use drystone_tests::{
    Mesh,
    certs::{CertificateAuthority, Credentials, ExtendedKeyUsagePurpose, KeyUsagePurpose, LeafParams, TRUST_DOMAIN},
    contracts,
    grpc::{assert_refused, reason},
    matrix::{CallCounts, assert_allowed, assert_rules_hold, call},
    methods, services, wait, workloads,
};
use tonic::{Code, Status};

/// An RPC that every server offers and that is in no Drystone contract.
struct BuiltIn {
    path: &'static str,
    is_stream: bool,
    /// Whether every workload may call it; if not, only the operator.
    is_public: bool,
}

const BUILT_IN: [BuiltIn; 5] = [
    BuiltIn { path: "/grpc.health.v1.Health/Check", is_stream: false, is_public: true },
    BuiltIn { path: "/grpc.health.v1.Health/List", is_stream: false, is_public: true },
    BuiltIn { path: "/grpc.health.v1.Health/Watch", is_stream: true, is_public: true },
    BuiltIn { path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", is_stream: true, is_public: false },
    BuiltIn {
        path: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        is_stream: true,
        is_public: false,
    },
];

#[tokio::test]
async fn each_rpc_is_callable_only_by_the_workloads_in_its_rule() {
    let CallCounts { allowed, denied } = assert_rules_hold(Mesh::shared(), contracts()).await;
    assert_eq!(allowed + denied, methods().len() * workloads().len());
    assert!(allowed > 40 && denied > 40, "the matrix is too small: {allowed} allowed, {denied} denied");
}

#[tokio::test]
async fn health_and_reflection_have_access_rules() {
    let mesh = Mesh::shared();
    for service in services() {
        for workload in workloads() {
            let channel = mesh.channel(service, workload);
            for BuiltIn { path, is_stream, is_public } in BUILT_IN {
                let answer = call(channel.clone(), path, is_stream).await;
                if is_public || workload == "operator" {
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
async fn a_service_serves_only_its_own_rpcs() {
    let mesh = Mesh::shared();
    for service in services() {
        let channel = mesh.channel(service, "operator");
        for method in methods().iter().filter(|method| *method.workload != *service) {
            assert_refused(call(channel.clone(), &method.path, false).await, Reason::MethodUnknown);
        }
    }
}

#[tokio::test]
async fn an_unlisted_workload_may_call_only_rpcs_that_allow_any() {
    let mesh = Mesh::shared();
    let authority = mesh.certificates().authority();
    // An unknown name, and valid identities that resemble a listed one.
    let unlisted = [
        "service/unlisted",
        "service/Auth",
        "service/auth.",
        "service/outside",
        "service/auth/user",
        "auth",
        "ns/default/sa/auth",
        "service",
    ];
    for path in unlisted {
        let leaf = LeafParams {
            uris: vec![format!("spiffe://{TRUST_DOMAIN}/{path}")],
            ..LeafParams::of(TRUST_DOMAIN, "unlisted")
        };
        for service in services() {
            let channel = mesh.channel_with(service, Some(authority.issue(&leaf)));
            for method in methods().iter().filter(|method| *method.workload == *service) {
                let is_stream = method.client_streaming || method.server_streaming;
                let answer = call(channel.clone(), &method.path, is_stream).await;
                // `any` allows each workload of the trust domain, whether a contract names it or not.
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

/// Credentials that fail the handshake, and the `reason` label under which the attempt is counted.
struct InvalidClient {
    name: &'static str,
    reason: &'static str,
    credentials: Option<Credentials>,
    /// Whether every RPC is tried, or one for each service.
    every_rpc: bool,
}

fn invalid_clients(authority: &CertificateAuthority) -> Vec<InvalidClient> {
    let foreign = CertificateAuthority::untrusted();
    let auth = || LeafParams::of(TRUST_DOMAIN, "auth");
    let every_rpc = |name, reason, credentials| InvalidClient { name, reason, credentials, every_rpc: true };
    let invalid = |name, reason, leaf: &LeafParams| {
        let credentials = Some(authority.issue(leaf));
        InvalidClient { name, reason, credentials, every_rpc: false }
    };
    let uris = |uris: &[&str]| LeafParams { uris: uris.iter().map(ToString::to_string).collect(), ..auth() };
    let usages = |usages: &[KeyUsagePurpose]| LeafParams { usages: usages.to_vec(), ..auth() };
    let extended = |usage| LeafParams { extended_usages: vec![usage], ..auth() };
    let id = format!("spiffe://{TRUST_DOMAIN}/service/auth");
    vec![
        every_rpc(
            "another trust domain",
            "untrusted_domain",
            Some(authority.issue(&LeafParams::of("elsewhere.example", "auth"))),
        ),
        every_rpc("another CA", "unknown_issuer", Some(foreign.issue(&auth()))),
        every_rpc("expired", "out_of_time", Some(authority.issue(&LeafParams { validity: (-7200, -3600), ..auth() }))),
        every_rpc("no certificate", "no_certificate", None),
        InvalidClient {
            name: "not yet valid",
            reason: "out_of_time",
            credentials: Some(authority.issue(&LeafParams { validity: (3600, 7200), ..auth() })),
            every_rpc: false,
        },
        invalid("no URI", "svid_uri_count", &uris(&[])),
        invalid("two IDs", "svid_uri_count", &uris(&[&id, &format!("spiffe://{TRUST_DOMAIN}/service/user")])),
        invalid("an ID and another URI", "svid_uri_count", &uris(&[&id, "https://example.com"])),
        invalid("no SPIFFE ID", "svid_spiffe_id", &uris(&[&format!("https://{TRUST_DOMAIN}/service/auth")])),
        invalid("the ID of the trust domain itself", "svid_empty_path", &uris(&[&format!("spiffe://{TRUST_DOMAIN}")])),
        invalid("a query", "svid_spiffe_id", &uris(&[&format!("{id}?x=1")])),
        invalid("an encoded path", "svid_spiffe_id", &uris(&[&format!("spiffe://{TRUST_DOMAIN}/service/%61uth")])),
        invalid("an empty segment", "svid_spiffe_id", &uris(&[&format!("spiffe://{TRUST_DOMAIN}/service//auth")])),
        invalid(
            "a relative segment",
            "svid_spiffe_id",
            &uris(&[&format!("spiffe://{TRUST_DOMAIN}/service/user/../auth")]),
        ),
        invalid("an upper-case trust domain", "svid_spiffe_id", &uris(&["spiffe://Drystone.local/service/auth"])),
        invalid("the certificate of a CA", "svid_ca", &LeafParams { is_ca: true, ..auth() }),
        invalid("no key usage", "svid_key_usage", &LeafParams { usages: vec![], ..auth() }),
        invalid("no digital signature", "svid_digital_signature", &usages(&[KeyUsagePurpose::KeyAgreement])),
        invalid(
            "a leaf that may sign certificates",
            "svid_signing_usage",
            &usages(&[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign]),
        ),
        invalid(
            "a certificate for servers only",
            "svid_extended_key_usage",
            &extended(ExtendedKeyUsagePurpose::ServerAuth),
        ),
        invalid(
            "a certificate for clients only",
            "svid_extended_key_usage",
            &extended(ExtendedKeyUsagePurpose::ClientAuth),
        ),
    ]
}

/// In TLS 1.3 a refused client may complete its handshake before it receives the alert, so the test reads the counter of
/// the server.
#[tokio::test]
async fn a_client_without_a_valid_certificate_reaches_no_rpc() {
    // Its own mesh, since the counters must not include other tests.
    let mesh = Mesh::start();
    let authority = mesh.certificates().authority();
    for InvalidClient { name, reason: label, credentials, every_rpc } in invalid_clients(&authority) {
        for service in services() {
            let labels = [("service", service), ("reason", label)];
            let count = async || mesh.metrics().await.sum("drystone_handshakes_refused_total", &labels);
            let before = count().await;
            let methods: Vec<_> = methods().iter().filter(|method| *method.workload == *service).collect();
            let tried = &methods[..if every_rpc { methods.len() } else { 1 }];
            for method in tried {
                let channel = mesh.channel_with(service, credentials.clone());
                let status = call(channel, &method.path, false).await.expect_err("the call must fail");
                assert!(reason(&status).is_none(), "{name} reached {}: {status:?}", method.path);
            }
            #[expect(clippy::cast_precision_loss, reason = "there are not that many RPCs")]
            let expected = before + tried.len() as f64;
            let description = format!("{service} counts {expected} handshakes refused for `{label}` ({name})");
            wait::until(&description, async || (count().await >= expected).then_some(())).await;
            assert!((count().await - expected).abs() < f64::EPSILON, "more than {description}");
        }
    }
    // No call was made, and every service is healthy.
    let metrics = mesh.metrics().await;
    assert!(metrics.sum("drystone_denials_total", &[]) < 0.5);
    for service in services() {
        let answer = call(mesh.channel(service, "operator"), "/grpc.health.v1.Health/Check", false).await;
        answer.unwrap_or_else(|status| panic!("{service}: {status:?}"));
    }
}
