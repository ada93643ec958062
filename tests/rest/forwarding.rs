//! What the edge forwards to a service, recorded by a mock service.

use drystone_tests::{
    Mesh,
    certs::{LeafParams, TRUST_DOMAIN},
    mock_service::{MockService, RecordedCall},
};
use http::Method;

/// A well-formed access token. These edges reach no auth service, so they have no keys and pass it on.
const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6InRlc3QifQ.e30.AA";

/// An edge with a mock user service.
async fn edge_with_mock_service() -> (Mesh, Mesh, MockService) {
    let mesh = Mesh::start();
    let certificates = mesh.certificates();
    let service = MockService::start(certificates.authority().issue(&LeafParams::of(TRUST_DOMAIN, "user"))).await;
    let edge = Mesh::setup().serve(&["edge"], certificates).set("peers.user", &service.address().to_string()).start();
    (mesh, edge, service)
}

#[track_caller]
fn only_call(service: &MockService) -> RecordedCall {
    let mut calls = service.calls();
    // Not the edge's own calls, such as the fetch of keys.
    calls.retain(|call| call.headers.contains_key("x-drystone-client-address"));
    let [call] = &calls[..] else { panic!("expected one call: {calls:?}") };
    call.clone()
}

#[tokio::test]
async fn only_allowed_headers_are_forwarded() {
    let (_mesh, edge, service) = edge_with_mock_service().await;
    let hostile = [
        ("x-forwarded-client-cert", "By=spiffe://drystone.local/service/user;URI=spiffe://drystone.local/service/auth"),
        ("x-drystone-client-address", "6.6.6.6"),
        ("x-drystone-client-agent", "forged"),
        ("x-drystone-anything", "forged"),
        ("x-user-id", "root"),
        ("x-user-roles", "admin"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("cookie", "session=1"),
        ("grpc-status", "0"),
        ("grpc-message", "forged"),
        ("grpc-encoding", "gzip"),
        ("grpc-trace-bin", "AAAA"),
        ("te", "gzip"),
        ("x-http-method-override", "DELETE"),
    ];
    let call = edge.rest().request(Method::GET, "/v1/users/me").bearer(TOKEN);
    let call = call.header("user-agent", "curl/8").header("x-request-id", "one-two-three").header("grpc-timeout", "2S");
    let call = call.header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    hostile.iter().fold(call, |call, (name, value)| call.header(name, value)).send().await.expect(200);

    let RecordedCall { path, headers, message } = only_call(&service);
    assert_eq!(path, "/drystone.user.v1.UserService/GetMe");
    assert!(message.is_empty());
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!(header("authorization"), format!("Bearer {TOKEN}"));
    assert_eq!(header("x-request-id"), "one-two-three");
    assert_eq!(header("x-drystone-client-address"), "127.0.0.1");
    assert_eq!(header("x-drystone-client-agent"), "curl/8");
    assert!(header("traceparent").starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{headers:?}");
    assert_ne!(
        header("traceparent"),
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "the edge starts its own span"
    );
    // The remaining time of the client's timeout.
    let timeout = header("grpc-timeout").trim_end_matches('u').parse::<u64>().unwrap();
    assert!((1_000_000..2_000_000).contains(&timeout), "{timeout}");
    assert_eq!(header("te"), "trailers");

    let mut names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let allowed = [
        "authorization",
        "content-type",
        "grpc-timeout",
        "te",
        "traceparent",
        "user-agent",
        "x-drystone-client-address",
        "x-drystone-client-agent",
        "x-request-id",
    ];
    assert_eq!(names, allowed);
    assert!(!header("user-agent").contains("curl"), "the edge sends its own user agent");
}

#[tokio::test]
async fn a_token_is_forwarded_only_to_rpcs_that_require_a_user() {
    let mesh = Mesh::start();
    let service =
        MockService::start(mesh.certificates().authority().issue(&LeafParams::of(TRUST_DOMAIN, "auth"))).await;
    let setup = Mesh::setup().serve(&["edge"], mesh.certificates());
    let edge = setup.set("peers.auth", &service.address().to_string()).start();
    edge.rest().get("/.well-known/jwks.json").bearer("secret").send().await.expect(200);
    let call = only_call(&service);
    assert_eq!(call.path, "/drystone.auth.v1.KeyService/GetJwks");
    assert!(call.headers.get("authorization").is_none(), "{call:?}");
}

#[tokio::test]
async fn the_edge_verifies_the_spiffe_id_of_its_upstream() {
    let mesh = Mesh::start();
    let certificates = mesh.certificates();
    let authority = certificates.authority();
    let foreign = drystone_tests::certs::CertificateAuthority::untrusted();
    for (name, credentials) in [
        ("another service", authority.issue(&LeafParams::of(TRUST_DOMAIN, "session"))),
        ("an unlisted workload", authority.issue(&LeafParams::of(TRUST_DOMAIN, "unlisted"))),
        ("another trust domain", authority.issue(&LeafParams::of("elsewhere.example", "user"))),
        ("another CA", foreign.issue(&LeafParams::of(TRUST_DOMAIN, "user"))),
        (
            "an expired certificate",
            authority.issue(&LeafParams { validity: (-7200, -3600), ..LeafParams::of(TRUST_DOMAIN, "user") }),
        ),
        (
            "a certificate without a SPIFFE ID",
            authority.issue(&LeafParams { uris: vec![], ..LeafParams::of(TRUST_DOMAIN, "user") }),
        ),
    ] {
        let service = MockService::start(credentials).await;
        let setup = Mesh::setup().serve(&["edge"], certificates);
        let edge = setup.set("peers.user", &service.address().to_string()).start();
        let answer = edge.rest().get("/v1/users/me").bearer(TOKEN).send().await;
        assert_eq!(answer.status, 503, "{name}: {}", answer.text());
        assert!(service.calls().is_empty(), "{name} has received {:?}", service.calls());
    }
}

#[tokio::test]
async fn the_client_address_comes_from_a_trusted_proxy() {
    let mesh = Mesh::start();
    let certificates = mesh.certificates();
    let service = MockService::start(certificates.authority().issue(&LeafParams::of(TRUST_DOMAIN, "user"))).await;
    let address = service.address().to_string();
    let setup = |header: &str| {
        let setup = Mesh::setup().serve(&["edge"], certificates).set("peers.user", &address);
        setup.set("edge.trusted_proxies", r#"["127.0.0.1"]"#).set("edge.client_address_header", header).start()
    };
    let (either, forwarded) = (setup("either"), setup("forwarded"));
    for (edge, headers, client) in [
        (&either, &[("x-forwarded-for", "203.0.113.7:51234")][..], "203.0.113.7"),
        (&either, &[("x-forwarded-for", "6.6.6.6, [2001:db8::1]:443")], "2001:db8::1"),
        (&either, &[("x-forwarded-for", "[2001:db8::1]")], "2001:db8::1"),
        (&either, &[("forwarded", "for=192.0.2.60;proto=http;by=203.0.113.43")], "192.0.2.60"),
        (&either, &[("forwarded", r#"for=6.6.6.6, For="[2001:db8:cafe::17]:4711""#)], "2001:db8:cafe::17"),
        (&either, &[("forwarded", "for=192.0.2.60, for=_hidden")], "127.0.0.1"),
        (&either, &[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "192.0.2.60")], "192.0.2.60"),
        (&forwarded, &[("forwarded", "for=192.0.2.60"), ("x-forwarded-for", "6.6.6.6")], "192.0.2.60"),
        (&forwarded, &[("x-forwarded-for", "6.6.6.6")], "127.0.0.1"),
    ] {
        let call = edge.rest().get("/v1/users/me").bearer(TOKEN);
        headers.iter().fold(call, |call, (name, value)| call.header(name, value)).send().await.expect(200);
        let call = service.calls().pop().unwrap();
        assert_eq!(call.headers["x-drystone-client-address"], client, "{headers:?}");
    }
}

/// It may be the proxy of an operator who forgot to list it: then all its clients share one limit.
#[tokio::test]
async fn a_proxy_that_is_not_trusted_is_reported_once() {
    let mesh = Mesh::start();
    mesh.rest().get("/health").send().await.expect(200);
    let reports = || mesh.log().matches("is not in edge.trusted_proxies").count();
    assert_eq!(reports(), 0);
    for _ in 0..3 {
        mesh.rest().get("/health").header("x-forwarded-for", "192.0.2.7").send().await.expect(200);
    }
    assert_eq!(reports(), 1, "{}", mesh.log());
}
