//! Nothing gets further through Envoy than through the edge.

use drystone::{
    Reason,
    contract::{Method, method::OUTSIDE},
};
use drystone_tests::{
    Envoy, Mesh, User,
    bad_tokens::{GoodToken, bad_tokens},
    grpc::{call_raw, reason, with_token},
    methods,
};
use serde_json::json;
use tonic::{Code, transport::Endpoint};

fn is_outside(method: &Method) -> bool {
    method.callers.iter().any(|caller| caller == OUTSIDE)
}

/// An RPC for other workloads, as a gRPC client without a certificate calls it.
#[tokio::test]
async fn an_rpc_that_does_not_list_outside_is_unreachable() {
    let mesh = Mesh::start();
    let envoy = Envoy::start(&mesh).await;
    let (_, tokens) = User::signed_in(&mesh).await;
    let channel = Endpoint::from_shared(format!("http://{}", envoy.address)).unwrap().connect_lazy();
    let paths: Vec<&str> = methods().iter().filter(|method| !is_outside(method)).map(|method| &*method.path).collect();
    assert!(paths.len() > 5, "{paths:?}");
    let built_in = ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"];
    for path in paths.iter().copied().chain(built_in) {
        let answer = call_raw(channel.clone(), path, with_token(Vec::new(), &tokens.access), false).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented, "{path}");
        let rest = envoy.rest().post(path, json!({})).bearer(&tokens.access).send().await;
        assert_eq!(rest.status, 404, "{path}: {}", rest.text());
    }
    let reached = mesh.metrics().await.sum("drystone_denials_total", &[("caller", "ingress")]);
    assert!(reached < 0.5, "{reached} calls reached a service");
}

/// The services see the address of the client that Envoy sees, whatever the client claims.
#[tokio::test]
async fn forged_identity_headers_are_removed() {
    let mesh = Mesh::setup().set("log.format", "json").start();
    let envoy = Envoy::start(&mesh).await;
    let user = User::register_at(envoy.rest()).await;
    let body = json!({"email": user.email, "password": user.password});
    let request = envoy.rest().post("/v1/auth/login", body);
    let signed_in = [
        ("x-drystone-client-address", "192.0.2.66"),
        ("x-drystone-client-agent", "forged"),
        ("x-forwarded-for", "192.0.2.67"),
        ("x-forwarded-client-cert", "URI=spiffe://drystone.local/service/operator"),
        ("x-user-id", "01890000-0000-7000-8000-000000000000"),
        ("user-agent", "a browser"),
    ]
    .into_iter()
    .fold(request, |request, (name, value)| request.header(name, value))
    .send()
    .await
    .expect(200)
    .json();
    let access = signed_in["tokens"]["accessToken"].as_str().or(signed_in["accessToken"].as_str()).unwrap();
    let sessions = envoy.rest().get("/v1/sessions").bearer(access).send().await.expect(200).json();
    let session = &sessions["sessions"][0];
    assert_eq!((&session["address"], &session["device"]), (&json!("127.0.0.1"), &json!("a browser")), "{sessions:#}");
    // A claimed client certificate makes nobody an operator.
    let path = methods().iter().find(|method| method.callers == ["operator"]).unwrap().path.clone();
    let claimed = envoy
        .rest()
        .post(&path, json!({}))
        .header("x-forwarded-client-cert", "URI=spiffe://drystone.local/service/operator");
    assert_eq!(claimed.bearer(access).send().await.status, 404);
}

/// Paths that are nearly a path of the contracts.
#[tokio::test]
async fn unusual_paths_are_refused_as_by_the_edge() {
    let mesh = Mesh::start();
    let envoy = Envoy::start(&mesh).await;
    let (_, tokens) = User::signed_in(&mesh).await;
    for path in [
        "/v1/users%2Fme",
        "/v1%2fusers/me",
        "/v1/users/me;x=1",
        "//v1/users/me",
        "/v1//users/me",
        "/V1/USERS/ME",
        "/v1/users/me.",
        "/v1/./users/me",
        "/v1/properties/../users/me",
        "/v1/users/%6de%00",
        "/v1/users/me?unknown=1",
        "/v1/users/me/x",
        "/v1\\users\\me",
    ] {
        let expected = mesh.rest().get(path).bearer(&tokens.access).send().await;
        let found = envoy.rest().get(path).bearer(&tokens.access).send().await;
        assert!(expected.status >= 400 && found.status >= 400, "{path}: {} and {}", expected.status, found.status);
        assert!(!found.text().contains("\"email\""), "{path}: {}", found.text());
    }
}

#[tokio::test]
async fn every_bad_token_is_refused_as_by_the_edge_and_a_revoked_one_at_once() {
    let mesh = Mesh::start();
    let envoy = Envoy::start(&mesh).await;
    let bad = bad_tokens(&GoodToken::of(&mesh).await);
    assert!(bad.len() >= 30);
    for bad in bad {
        let answer = envoy.rest().get("/v1/users/me").bearer(&bad.token).send().await;
        assert_eq!(answer.status, 401, "{}: {}", bad.name, answer.text());
        assert!(["TOKEN_INVALID", "TOKEN_EXPIRED"].contains(&answer.reason().as_str()), "{}", bad.name);
    }
    let user = User::register_at(envoy.rest()).await;
    let tokens = user.sign_in_at(envoy.rest()).await;
    envoy.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
    envoy.rest().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.expect(200);
    envoy.rest().get("/v1/users/me").bearer(&tokens.access).send().await.refused(Reason::TokenRevoked);
    let channel = Endpoint::from_shared(format!("http://{}", envoy.address)).unwrap().connect_lazy();
    let status =
        call_raw(channel, "/drystone.user.v1.UserService/GetMe", with_token(Vec::new(), &tokens.access), false);
    assert_eq!(reason(&status.await.unwrap_err()), Some(Reason::TokenRevoked));
}

/// The limit of requests holds for each address, as trusted proxies name it, and registration has its own.
#[tokio::test]
async fn limits_count_by_address() {
    let mesh = Mesh::start();
    let settings =
        [("limits.requests_per_minute", "20"), ("limits.registration_per_minute", "2"), ("envoy.trusted_hops", "1")];
    let envoy = Envoy::of(&mesh, &settings).await;
    let from =
        async |client: &str| envoy.rest().get("/.well-known/jwks.json").header("x-forwarded-for", client).send().await;
    for _ in 0..20 {
        from("192.0.2.1").await.expect(200);
    }
    // Twenty a minute are one in three seconds.
    let limited = from("192.0.2.1").await;
    assert_eq!(limited.header("retry-after"), "3");
    limited.refused(Reason::RateLimited);
    from("192.0.2.2").await.expect(200);
    // Checks of health do not share it.
    envoy.rest().get("/health").header("x-forwarded-for", "192.0.2.1").send().await.expect(200);
    // The network of one subscriber.
    for number in 0..20 {
        from(&format!("2001:db8::{number}")).await.expect(200);
    }
    from("2001:db8::ffff").await.refused(Reason::RateLimited);
    from("2001:db8:0:1::1").await.expect(200);
    let register = async || {
        let body = json!({"email": drystone_tests::unique_email(), "password": "correct horse", "displayName": "Ada"});
        let call = envoy.rest().post("/v1/auth/register", body).header("x-forwarded-for", "192.0.2.3");
        call.send().await
    };
    register().await.expect(200);
    register().await.expect(200);
    let limited = register().await;
    assert_eq!(limited.header("retry-after"), "30");
    limited.refused(Reason::RateLimited);
}
