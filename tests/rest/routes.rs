//! The REST edge: routes, methods, response format, and unreachable RPCs.

use bytes::Bytes;
use drystone::Reason;
use drystone_tests::{Mesh, RestResponse, User, contracts, methods};
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

#[tokio::test]
async fn an_error_response_is_a_google_rpc_status() {
    let answer = Mesh::shared().rest().get("/v1/users/me").send().await.refused(Reason::TokenMissing);
    let error = answer.json();
    assert_eq!(error["code"], 16);
    let details =
        json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TOKEN_MISSING", "domain": "drystone"}]);
    let mut found = error["details"].clone();
    found[0].as_object_mut().unwrap().remove("metadata");
    assert_eq!(found, details);
    assert_eq!(error.as_object().unwrap().keys().collect::<Vec<_>>(), ["code", "details", "message"]);
    assert_eq!(answer.header("www-authenticate"), "Bearer");
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let rest = Mesh::shared().rest();
    let paths = [
        "/",
        "/v1",
        "/v1/",
        "/v1/users/",
        "/v1//users",
        "/v2/users",
        "/V1/users",
        "/v1/users/me/",
        "/%2e%2e/",
        "/v1/users/me/x",
    ];
    for path in paths {
        rest.get(path).send().await.refused(Reason::RouteNotFound);
        rest.post(path, json!({})).send().await.refused(Reason::RouteNotFound);
    }
}

#[tokio::test]
async fn an_unsupported_method_is_answered_with_the_allow_header() {
    let rest = Mesh::shared().rest();
    for (method, path, allow) in [
        (Method::PUT, "/v1/users/me", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        (Method::GET, "/v1/auth/login", "OPTIONS, POST"),
        (Method::PUT, "/v1/properties", "GET, HEAD, OPTIONS, POST"),
        (Method::POST, "/v1/properties/01890a5d-ac96-774b-bcce-b302099a8057", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        (Method::GET, "/v1/sessions:revokeAll", "OPTIONS, POST"),
        (Method::POST, "/.well-known/jwks.json", "GET, HEAD, OPTIONS"),
        (Method::POST, "/health", "GET, HEAD, OPTIONS"),
        (Method::from_bytes(b"BREW").unwrap(), "/v1/users", "GET, HEAD, OPTIONS, POST"),
        (Method::TRACE, "/v1/users", "GET, HEAD, OPTIONS, POST"),
    ] {
        let answer = rest.request(method, path).send().await.refused(Reason::MethodNotAllowed);
        assert_eq!(answer.header("allow"), allow, "{path}");
    }
    let options = rest.request(Method::OPTIONS, "/v1/properties").send().await;
    assert_eq!(options.status / 100, 2, "{options:?}");
    assert_eq!(options.header("allow"), "GET, HEAD, OPTIONS, POST");
}

#[tokio::test]
async fn head_returns_the_headers_of_get_without_a_body() {
    let rest = Mesh::shared().rest();
    let head = rest.request(Method::HEAD, "/.well-known/jwks.json").send().await.expect(200);
    let get = rest.get("/.well-known/jwks.json").send().await.expect(200);
    assert!(head.body.is_empty());
    assert_eq!(head.header("content-type"), get.header("content-type"));
    assert_eq!(rest.request(Method::HEAD, "/v1/users/me").send().await.status, 401);
    assert_eq!(rest.request(Method::HEAD, "/nowhere").send().await.status, 404);
}

#[tokio::test]
async fn an_update_changes_the_fields_in_its_body_or_update_mask() {
    let mesh = Mesh::shared();
    let (user, tokens) = User::signed_in(mesh).await;
    let path = format!("/v1/users/{}", user.id);
    let change = async |query: &str, body: Value| {
        mesh.rest().patch(&format!("{path}{query}"), body).bearer(&tokens.access).send().await
    };
    let name = |answer: &RestResponse| answer.json()["displayName"].as_str().unwrap().to_owned();
    assert_eq!(name(&change("", json!({"displayName": "One"})).await.expect(200)), "One");
    assert_eq!(name(&change("?updateMask=displayName", json!({"displayName": "Two"})).await.expect(200)), "Two");
    // Output-only fields may be sent back with the resource and are ignored.
    let mut read = mesh.rest().get(&path).bearer(&tokens.access).send().await.expect(200).json();
    read["displayName"] = json!("Three");
    assert_eq!(name(&change("", read).await.expect(200)), "Three");

    for (query, body) in [
        ("", json!({"displayName": ""})),
        ("", json!({"displayName": "x".repeat(201)})),
        ("?updateMask=email", json!({"email": "x@example.com"})),
        ("?updateMask=nonsense", json!({"displayName": "Four"})),
        ("", json!({"nonsense": "Four"})),
        ("", json!({"email": "x@example.com", "displayName": "Four"})),
        ("", json!({})),
    ] {
        let shown = format!("{query} {body}");
        let answer = change(query, body).await;
        assert_eq!((answer.status, answer.reason().as_str()), (400, "INVALID_REQUEST"), "{shown}: {}", answer.text());
    }
    // The id in the path is used; another one in the body is never followed.
    let (other, _) = User::signed_in(mesh).await;
    let answer = change("", json!({"id": other.id, "displayName": "Five"})).await;
    assert!(answer.status == 400 || answer.json()["id"] == user.id.as_str(), "{}", answer.text());
}

#[tokio::test]
async fn client_supplied_identity_headers_are_ignored() {
    let mesh = Mesh::shared();
    let (user, tokens) = User::signed_in(mesh).await;
    let forged = [
        ("x-drystone-client-address", "6.6.6.6"),
        ("x-drystone-client-agent", "forged"),
        ("x-forwarded-for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("x-forwarded-client-cert", "URI=spiffe://drystone.local/service/auth"),
        ("x-user-id", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("x-user-roles", "admin"),
    ];
    let sign_in = mesh.rest().post("/v1/auth/login", json!({"email": user.email, "password": user.password}));
    let sign_in =
        forged.iter().fold(sign_in.header("user-agent", "honest/1.0"), |call, (name, value)| call.header(name, value));
    let second = drystone_tests::Tokens::of(&sign_in.send().await.expect(200).json());
    let sessions = mesh.rest().get("/v1/sessions").bearer(&second.access).send().await.expect(200).json();
    assert_eq!(sessions["sessions"][0]["device"], "honest/1.0");
    assert_eq!(sessions["sessions"][0]["address"], "127.0.0.1");

    let me = forged.iter().fold(mesh.rest().get("/v1/users/me"), |call, (name, value)| call.header(name, value));
    me.send().await.refused(Reason::TokenMissing);
    let me = forged.iter().fold(mesh.rest().get("/v1/users/me"), |call, (name, value)| call.header(name, value));
    let me = me.bearer(&tokens.access).send().await.expect(200).json();
    assert_eq!(me["id"], user.id.as_str());
}

#[tokio::test]
async fn an_rpc_without_a_rest_binding_is_unreachable_through_the_edge() {
    let mesh = Mesh::shared();
    let (user, tokens) = User::signed_in(mesh).await;
    let pool = contracts().contracts()[0].pool();
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let mut hidden = 0;
    for method in methods() {
        let (service, name) = method.path[1..].split_once('/').unwrap();
        let service = pool.get_service_by_name(service).unwrap();
        let rpc = service.methods().find(|rpc| rpc.name() == name).unwrap();
        if !rpc.options().has_extension(&http) {
            hidden += 1;
        }
        // No RPC is reachable by its gRPC name, whether it has a REST binding or not.
        let lower = method.path.to_lowercase();
        let short = format!("/v1/{name}");
        let colon = format!("/v1/users/{}:{name}", user.id);
        for path in [&*method.path, &lower, &short, &format!("/v1{}", method.path), &format!("{}?x=1", method.path)] {
            for verb in [Method::POST, Method::GET, Method::PUT] {
                let call = mesh.rest().request(verb, path).json(&json!({"userId": user.id})).bearer(&tokens.access);
                call.send().await.refused(Reason::RouteNotFound);
            }
        }
        let call = mesh.rest().request(Method::POST, &colon).json(&json!({})).bearer(&tokens.access);
        assert_eq!(call.send().await.status / 100, 4);
        let grpc = mesh.rest().request(Method::POST, &method.path).body("application/grpc", vec![0; 5]);
        grpc.header("te", "trailers").send().await.refused(Reason::RouteNotFound);
    }
    assert!(hidden >= 7, "only {hidden} RPCs have no REST binding");
    // The edge has not forwarded any of these requests.
    let denied = mesh.metrics().await.sum("drystone_denials_total", &[("caller", "edge"), ("part", "caller")]);
    assert!(denied < 0.5, "the edge itself was denied {denied} calls");
}

#[tokio::test]
async fn jwks_and_metadata_are_at_their_well_known_paths() {
    let mesh = Mesh::shared();
    let rest = mesh.rest();
    let jwks = rest.get("/.well-known/jwks.json").send().await.expect(200).json();
    let keys = jwks["keys"].as_array().unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        assert_eq!(
            (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
            (&json!("EC"), &json!("P-256"), &json!("ES256"), &json!("sig"))
        );
        for member in ["kid", "x", "y"] {
            assert_eq!(key[member].as_str().unwrap().len(), 43, "{member} is 32 bytes in base64url without padding");
        }
        assert!(key.get("d").is_none(), "the key set contains a private key");
    }

    let discovery = rest.get("/.well-known/oauth-authorization-server").send().await.expect(200).json();
    let same = rest.get("/.well-known/openid-configuration").send().await.expect(200).json();
    assert_eq!(discovery, same);
    let base = format!("http://{}", rest.address());
    assert_eq!(discovery["issuer"], base.as_str());
    assert_eq!(discovery["jwks_uri"], format!("{base}/.well-known/jwks.json"));
    // RFC 8414, section 3.2: a member without elements is left out.
    assert!(discovery.as_object().unwrap().values().all(|member| *member != json!([])), "{discovery}");
    let names: Vec<&String> = discovery.as_object().unwrap().keys().collect();
    assert!(names.iter().all(|name| !name.contains(char::is_uppercase)), "{names:?} are not the names of RFC 8414");
}

#[tokio::test]
async fn jwks_and_metadata_are_cacheable_and_allow_any_origin() {
    let rest = Mesh::shared().rest();
    for (path, max_age) in [
        // Less than a new key is published before it signs.
        ("/.well-known/jwks.json", 60),
        ("/.well-known/openid-configuration", 3600),
        ("/.well-known/oauth-authorization-server", 3600),
    ] {
        let answer = rest.get(path).header("origin", "https://app.example").send().await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(answer.header("cache-control"), format!("public, max-age={max_age}"), "{path}");
    }
}

#[tokio::test]
async fn every_response_has_a_request_id_and_security_headers() {
    let rest = Mesh::shared().rest();
    let own = rest.get("/.well-known/jwks.json").header("x-request-id", "walk-7.b_C").send().await;
    assert_eq!(own.header("x-request-id"), "walk-7.b_C");
    let mut seen = std::collections::HashSet::new();
    for answer in [
        rest.get("/.well-known/jwks.json").send().await,
        rest.get("/nowhere").send().await,
        rest.get("/v1/users/me").send().await,
        rest.delete("/v1/users/me").send().await,
        rest.get("/health").send().await,
        rest.request(Method::POST, "/v1/auth/login").body("application/json", "{").send().await,
        rest.get("/v1/users/me").header("x-request-id", "two words").send().await,
        rest.get("/v1/users/me").header("x-request-id", &"x".repeat(65)).send().await,
        rest.get("/v1/users/me").header("x-request-id", "").send().await,
    ] {
        let id = answer.header("x-request-id");
        assert!((16..=64).contains(&id.len()) && !id.contains(' ') && seen.insert(id.to_owned()), "`{id}`: {answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{answer:?}");
        // The first response is the key set, which may be cached.
        let expected = if seen.len() == 1 { "public, max-age=60" } else { "no-store" };
        assert_eq!(answer.header("cache-control"), expected, "{answer:?}");
    }
}

#[tokio::test]
async fn the_edge_reports_its_health() {
    let health = Mesh::shared().rest().get("/health").send().await.expect(200);
    assert_eq!(health.json(), json!({"status": "ok"}));
}

#[tokio::test]
async fn a_custom_method_accepts_only_its_own_http_method() {
    let rest = Mesh::shared().rest();
    for method in [Method::GET, Method::HEAD, Method::DELETE, Method::PATCH] {
        let answer = rest.request(method, "/v1/sessions:revokeAll").send().await.expect(405);
        assert_eq!(answer.header("allow"), "OPTIONS, POST");
    }
    let answer = rest.request(Method::OPTIONS, "/v1/sessions:revokeAll").send().await.expect(204);
    assert_eq!(answer.header("allow"), "OPTIONS, POST");
    // A custom verb without a route is part of the id.
    rest.get("/v1/users/7:revokeAll").send().await.refused(Reason::TokenMissing);
}

#[tokio::test]
async fn an_unsupported_body_is_answered_with_the_accepted_types() {
    let rest = Mesh::shared().rest();
    let (_, tokens) = User::signed_in(Mesh::shared()).await;
    let path = "/v1/properties/01890a5d-ac96-774b-bcce-b302099a8057";
    for (method, path) in [(Method::POST, "/v1/auth/login"), (Method::PATCH, path)] {
        let call = rest.request(method.clone(), path).json(&json!({})).header("content-encoding", "gzip");
        let answer = call.bearer(&tokens.access).send().await.refused(Reason::UnsupportedMediaType);
        assert_eq!((answer.header("accept-encoding"), answer.header("accept")), ("identity", ""));
        let answer = rest.request(method.clone(), path).body("text/plain", "{}");
        let answer = answer.bearer(&tokens.access).send().await.refused(Reason::UnsupportedMediaType);
        assert_eq!((answer.header("accept-encoding"), answer.header("accept")), ("", "application/json"));
        let is_patch = method == Method::PATCH;
        assert_eq!(answer.header("accept-patch"), if is_patch { "application/json" } else { "" });
    }
}

#[tokio::test]
async fn http_2_is_supported() {
    let stream = TcpStream::connect(Mesh::shared().rest().address()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://localhost/health").body(http_body_util::Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    connection.abort();
}
