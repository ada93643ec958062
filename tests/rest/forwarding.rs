//! What the edge hands on into the mesh, seen from the place of a service behind it.

use drystone_tests::{
    Mesh,
    certs::{Leaf, TRUST_DOMAIN},
    impostor::{Impostor, Seen},
};
use http::Method;

/// An edge alone, with an impostor in the place of the user service.
async fn edge_and_impostor() -> (Mesh, Mesh, Impostor) {
    let mesh = Mesh::start();
    let certificates = mesh.certificates();
    let impostor = Impostor::start(certificates.authority().issue(&Leaf::of(TRUST_DOMAIN, "user"))).await;
    let edge = Mesh::setup().serve(&["edge"], certificates).set("peers.user", &impostor.address().to_string()).start();
    (mesh, edge, impostor)
}

#[track_caller]
fn only(impostor: &Impostor) -> Seen {
    let seen = impostor.seen();
    let [seen] = &seen[..] else { panic!("not one call: {seen:?}") };
    seen.clone()
}

#[tokio::test]
async fn of_what_a_client_sends_only_this_goes_on() {
    let (_mesh, edge, impostor) = edge_and_impostor().await;
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
    let call = edge.rest().call(Method::GET, "/v1/users/me").bearer("whatever-the-client-has");
    let call = call.header("user-agent", "curl/8").header("x-request-id", "one-two-three").header("grpc-timeout", "2S");
    let call = call.header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    hostile.iter().fold(call, |call, (name, value)| call.header(name, value)).send().await.expect(200);

    let Seen { path, headers, message } = only(&impostor);
    assert_eq!(path, "/drystone.user.v1.UserService/GetMe");
    assert!(message.is_empty());
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!(header("authorization"), "Bearer whatever-the-client-has");
    assert_eq!(header("x-request-id"), "one-two-three");
    assert_eq!(header("x-drystone-client-address"), "127.0.0.1");
    assert_eq!(header("x-drystone-client-agent"), "curl/8");
    assert!(header("traceparent").starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{headers:?}");
    assert_ne!(
        header("traceparent"),
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "it is another's span"
    );
    // Less than the client had, since time has passed.
    let timeout = header("grpc-timeout").trim_end_matches('u').parse::<u64>().unwrap();
    assert!((1_000_000..2_000_000).contains(&timeout), "{timeout}");
    assert_eq!(header("te"), "trailers");

    let mut names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let valid = [
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
    assert_eq!(names, valid);
    assert!(!header("user-agent").contains("curl"), "the edge calls in its own name");
}

#[tokio::test]
async fn a_token_goes_no_further_than_where_it_is_asked_for() {
    let mesh = Mesh::start();
    let impostor = Impostor::start(mesh.certificates().authority().issue(&Leaf::of(TRUST_DOMAIN, "auth"))).await;
    let setup = Mesh::setup().serve(&["edge"], mesh.certificates());
    let edge = setup.set("peers.auth", &impostor.address().to_string()).start();
    edge.rest().get("/.well-known/jwks.json").bearer("secret").send().await.expect(200);
    let seen = only(&impostor);
    assert_eq!(seen.path, "/drystone.auth.v1.KeyService/GetJwks");
    assert!(seen.headers.get("authorization").is_none(), "{seen:?}");
}

#[tokio::test]
async fn the_edge_speaks_with_no_one_but_the_service_that_it_dials() {
    let mesh = Mesh::start();
    let certificates = mesh.certificates();
    let authority = certificates.authority();
    let foreign = drystone_tests::certs::Authority::foreign();
    for (name, credentials) in [
        ("another service", authority.issue(&Leaf::of(TRUST_DOMAIN, "session"))),
        ("a stranger", authority.issue(&Leaf::of(TRUST_DOMAIN, "stranger"))),
        ("another trust domain", authority.issue(&Leaf::of("elsewhere.example", "user"))),
        ("another CA", foreign.issue(&Leaf::of(TRUST_DOMAIN, "user"))),
        ("an expired one", authority.issue(&Leaf { validity: (-7200, -3600), ..Leaf::of(TRUST_DOMAIN, "user") })),
        ("one without a SPIFFE ID", authority.issue(&Leaf { uris: vec![], ..Leaf::of(TRUST_DOMAIN, "user") })),
    ] {
        let impostor = Impostor::start(credentials).await;
        let setup = Mesh::setup().serve(&["edge"], certificates);
        let edge = setup.set("peers.user", &impostor.address().to_string()).start();
        let answer = edge.rest().get("/v1/users/me").bearer("secret").send().await;
        assert_eq!(answer.status, 503, "{name}: {}", answer.text());
        assert!(impostor.seen().is_empty(), "{name} has seen {:?}", impostor.seen());
    }
}

#[tokio::test]
async fn the_client_is_whom_a_trusted_proxy_names() {
    let mesh = Mesh::start();
    let certificates = mesh.certificates();
    let impostor = Impostor::start(certificates.authority().issue(&Leaf::of(TRUST_DOMAIN, "user"))).await;
    let address = impostor.address().to_string();
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
        let call = edge.rest().get("/v1/users/me").bearer("whatever-the-client-has");
        headers.iter().fold(call, |call, (name, value)| call.header(name, value)).send().await.expect(200);
        let seen = impostor.seen().pop().unwrap();
        assert_eq!(seen.headers["x-drystone-client-address"], client, "{headers:?}");
    }
}
