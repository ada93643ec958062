//! The REST edge, as it answers what is right and what is not. Whatever a client sends, it is answered: never with a
//! 5xx for a fault of its own, never by a dropped connection.

use bytes::Bytes;
use drystone::{
    Reason,
    contract::{DESCRIPTOR_SET, METHODS},
};
use drystone_tests::{Answer, Mesh, User, unique_email};
use http::Method;
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn account() -> Value {
    json!({"email": unique_email(), "password": "correct horse", "displayName": "Ada"})
}

async fn register(body: impl Into<Bytes>) -> Answer {
    Mesh::shared().rest().call(Method::POST, "/v1/auth/register").body("application/json", body).send().await
}

#[tokio::test]
async fn a_refusal_is_a_google_rpc_status() {
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
async fn a_path_that_nobody_serves_is_not_found() {
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
async fn a_method_that_a_path_does_not_have_is_answered_with_those_that_it_has() {
    let rest = Mesh::shared().rest();
    for (method, path, allow) in [
        (Method::DELETE, "/v1/users/me", "GET, HEAD, OPTIONS, PATCH"),
        (Method::GET, "/v1/auth/login", "OPTIONS, POST"),
        (Method::PUT, "/v1/properties", "GET, HEAD, OPTIONS, POST"),
        (Method::POST, "/v1/properties/01890a5d-ac96-774b-bcce-b302099a8057", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        (Method::GET, "/v1/sessions:revokeAll", "OPTIONS, POST"),
        (Method::POST, "/.well-known/jwks.json", "GET, HEAD, OPTIONS"),
        (Method::POST, "/health", "GET, HEAD, OPTIONS"),
        (Method::from_bytes(b"BREW").unwrap(), "/v1/users", "GET, HEAD, OPTIONS"),
        (Method::TRACE, "/v1/users", "GET, HEAD, OPTIONS"),
    ] {
        let answer = rest.call(method, path).send().await.refused(Reason::MethodNotAllowed);
        assert_eq!(answer.header("allow"), allow, "{path}");
    }
    let options = rest.call(Method::OPTIONS, "/v1/properties").send().await;
    assert_eq!(options.status / 100, 2, "{options:?}");
    assert_eq!(options.header("allow"), "GET, HEAD, OPTIONS, POST");
}

#[tokio::test]
async fn head_answers_as_get_does_without_the_body() {
    let rest = Mesh::shared().rest();
    let head = rest.call(Method::HEAD, "/.well-known/jwks.json").send().await.expect(200);
    let get = rest.get("/.well-known/jwks.json").send().await.expect(200);
    assert!(head.body.is_empty());
    assert_eq!(head.header("content-type"), get.header("content-type"));
    assert_eq!(rest.call(Method::HEAD, "/v1/users/me").send().await.status, 401);
    assert_eq!(rest.call(Method::HEAD, "/nowhere").send().await.status, 404);
}

#[tokio::test]
async fn only_json_is_taken() {
    let rest = Mesh::shared().rest();
    let post = |content_type| rest.call(Method::POST, "/v1/auth/register").body(content_type, account().to_string());
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "application/grpc", "application/jsonx", "", "json"]
    {
        post(content_type).send().await.refused(Reason::UnsupportedMediaType);
    }
    for content_type in ["application/json; charset=latin1", "text/json"] {
        assert_eq!(post(content_type).send().await.status, 415, "{content_type}");
    }
    for content_type in ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=\"UTF-8\""] {
        post(content_type).send().await.expect(200);
    }
}

#[tokio::test]
async fn a_large_body_is_refused_and_the_answer_can_be_read() {
    let mut body = account();
    body["displayName"] = json!("x".repeat(200));
    // Room that JSON gives away: as large as is taken, and one byte more.
    let padded = |size: usize| {
        let text = body.to_string();
        format!("{text}{}", " ".repeat(size - text.len()))
    };
    register(padded(1024 * 1024)).await.expect(200);
    for size in [1024 * 1024 + 1, 2 * 1024 * 1024, 16 * 1024 * 1024] {
        register(padded(size)).await.refused(Reason::BodyTooLarge);
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused() {
    let lawful = account().to_string();
    let open = &lawful[..lawful.len() - 1];
    let named = |name: &[u8]| {
        let mut account = account();
        account["displayName"] = json!("NAME");
        let text = account.to_string();
        let (before, after) = text.split_once("NAME").unwrap();
        [before.as_bytes(), name, after.as_bytes()].concat()
    };
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("cut short", open.into()),
        ("nothing of it", b"hello".into()),
        ("a second value", format!("{lawful}{{}}").into()),
        ("a NUL", format!("{lawful}\0").into()),
        ("a byte order mark", format!("\u{feff}{lawful}").into()),
        ("bad UTF-8", named(b"\xff")),
        ("overlong UTF-8", named(b"\xc0\xaf")),
        ("a surrogate in UTF-8", named(b"\xed\xa0\x80")),
        ("UTF-16", lawful.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("half a surrogate pair", named(br"\ud800")),
        ("a control character", named(b"\x01")),
        ("NaN", lawful.replace("\"Ada\"", "NaN").into()),
        ("single quotes", lawful.replace('"', "'").into()),
    ];
    for (name, body) in bodies {
        let answer = register(body).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert_eq!(answer.reason(), "MALFORMED_BODY", "{name}: {}", answer.text());
        assert!(answer.body.len() < 2000, "{name}: the body comes back: {}", answer.text());
    }
}

#[tokio::test]
async fn json_that_is_nested_too_deep_is_refused() {
    for (open, close) in [("[", "]"), (r#"{"labels":"#, "}"), (r#"{"x":"#, "}"), (r#"{"displayName":["#, "]}")] {
        for depth in [200, 5_000, 50_000] {
            let whole = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            for body in [&whole, &whole[..whole.len() / 2]] {
                let answer = register(body.to_owned()).await;
                assert_eq!(answer.status, 400, "{depth} of {open}: {}", answer.text());
                answer.reason();
            }
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_field_is_said_by_its_name() {
    let with = |changes: Value| {
        let mut body = account();
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        register(body.to_string())
    };
    for (changes, field) in [
        (json!({"displayName": ""}), "displayName"),
        (json!({"displayName": "x".repeat(201)}), "displayName"),
        (json!({"displayName": 7}), "displayName"),
        (json!({"displayName": ["Ada"]}), "displayName"),
        (json!({"password": "short"}), "password"),
        (json!({"password": "x".repeat(257)}), "password"),
        (json!({"email": "nobody"}), "email"),
        (json!({"email": format!("{}@example.com", "x".repeat(300))}), "email"),
        (json!({"requestId": "7"}), "requestId"),
        (json!({"nickname": "Countess"}), "nickname"),
    ] {
        let shown = changes.to_string();
        let answer = with(changes).await.refused(Reason::InvalidRequest);
        assert_eq!(answer.fields(), [field], "{shown}: {}", answer.text());
        let description = answer.detail("google.rpc.BadRequest").unwrap()["fieldViolations"][0]["description"].clone();
        assert!(description.as_str().is_some_and(|text| text.len() > 5), "{shown} is not described: {}", answer.text());
    }
    // All that is wrong is said at once, and a secret is not among it.
    let answer =
        register(r#"{"email":"x","password":"hunter2","displayName":""}"#).await.refused(Reason::InvalidRequest);
    let mut fields = answer.fields();
    fields.sort_unstable();
    assert_eq!(fields, ["displayName", "email", "password"]);
    assert!(!answer.text().contains("hunter2"), "{}", answer.text());
    // Something that is no object has no fields.
    for body in ["[]", "null", "7", "\"x\"", "[{}]"] {
        let answer = register(body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
}

#[tokio::test]
async fn what_is_wrong_in_path_and_query_is_said_by_its_name() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    for (path, field) in [
        ("/v1/properties?pageSize=many", "pageSize"),
        ("/v1/properties?pageSize=-1", "pageSize"),
        ("/v1/properties?pageSize=201", "pageSize"),
        ("/v1/properties?pageSize=99999999999999999999", "pageSize"),
        ("/v1/properties?pageSize=1&pageSize=2", "pageSize"),
        ("/v1/properties?colour=red", "colour"),
        ("/v1/properties/7", "id"),
        ("/v1/properties/%F0%9F%94%91", "id"),
        ("/v1/users/nobody", "id"),
        ("/v1/users/01890a5d-ac96-774b-bcce-b302099a8057?id=x", "id"),
    ] {
        let answer = mesh.rest().get(path).bearer(&tokens.access).send().await.refused(Reason::InvalidRequest);
        assert_eq!(answer.fields(), [field], "{path}: {}", answer.text());
    }
    for path in
        ["/v1/users/%ff", "/v1/users/%", "/v1/users/%zz", "/v1/properties?pageToken=%ff", "/v1/properties?%ff=1"]
    {
        let answer = mesh.rest().get(path).bearer(&tokens.access).send().await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        answer.reason();
    }
}

#[tokio::test]
async fn an_update_changes_what_its_body_or_its_mask_names() {
    let mesh = Mesh::shared();
    let (user, tokens) = User::signed_in(mesh).await;
    let path = format!("/v1/users/{}", user.id);
    let change = async |query: &str, body: Value| {
        mesh.rest().patch(&format!("{path}{query}"), body).bearer(&tokens.access).send().await
    };
    let name = |answer: &Answer| answer.json()["displayName"].as_str().unwrap().to_owned();
    assert_eq!(name(&change("", json!({"displayName": "One"})).await.expect(200)), "One");
    assert_eq!(name(&change("?updateMask=displayName", json!({"displayName": "Two"})).await.expect(200)), "Two");
    // What the server sets itself may come back with the rest of what was read, and is let lie.
    let mut read = mesh.rest().get(&path).bearer(&tokens.access).send().await.expect(200).json();
    read["displayName"] = json!("Three");
    assert_eq!(name(&change("", read).await.expect(200)), "Three");

    for (query, body) in [
        ("", json!({"displayName": ""})),
        ("", json!({"displayName": "x".repeat(201)})),
        ("?updateMask=email", json!({"email": "x@example.com"})),
        ("?updateMask=nonsense", json!({"displayName": "Four"})),
        ("", json!({"nonsense": "Four"})),
        ("", json!({})),
    ] {
        let shown = format!("{query} {body}");
        let answer = change(query, body).await;
        assert_eq!((answer.status, answer.reason().as_str()), (400, "INVALID_REQUEST"), "{shown}: {}", answer.text());
    }
    // The id of the path is the one that counts; another in the body is a contradiction, and is not followed.
    let (other, _) = User::signed_in(mesh).await;
    let answer = change("", json!({"id": other.id, "displayName": "Five"})).await;
    assert!(answer.status == 400 || answer.json()["id"] == user.id.as_str(), "{}", answer.text());
}

#[tokio::test]
async fn a_timeout_that_cannot_be_read_is_refused_and_one_that_can_is_kept() {
    let rest = Mesh::shared().rest();
    let jwks = || rest.get("/.well-known/jwks.json");
    for malformed in ["", "1", "S", "1s", "-1S", "1.5S", "123456789S", "soon", "1S 1S"] {
        jwks().header("grpc-timeout", malformed).send().await.refused(Reason::MalformedTimeout);
    }
    jwks().header("grpc-timeout", "1S").header("grpc-timeout", "1S").send().await.refused(Reason::MalformedTimeout);
    jwks().header("grpc-timeout", "10S").send().await.expect(200);
    // Hashing takes longer than this.
    let user = User::register(Mesh::shared()).await;
    let body = json!({"email": user.email, "password": user.password});
    let call = rest.post("/v1/auth/login", body).header("grpc-timeout", "1m");
    call.send().await.refused(Reason::DeadlineExceeded);
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_not_believed() {
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
async fn an_rpc_without_a_rest_path_cannot_be_reached() {
    let mesh = Mesh::shared();
    let (user, tokens) = User::signed_in(mesh).await;
    let pool = DescriptorPool::decode(DESCRIPTOR_SET).unwrap();
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let mut hidden = 0;
    for method in METHODS {
        let (service, name) = method.path[1..].split_once('/').unwrap();
        let service = pool.get_service_by_name(service).unwrap();
        let rpc = service.methods().find(|rpc| rpc.name() == name).unwrap();
        if !rpc.options().has_extension(&http) {
            hidden += 1;
        }
        // By the name that it has inside, no RPC is reached, whether it has a REST path or not.
        let lower = method.path.to_lowercase();
        let short = format!("/v1/{name}");
        let colon = format!("/v1/users/{}:{name}", user.id);
        for path in [method.path, &lower, &short, &format!("/v1{}", method.path), &format!("{}?x=1", method.path)] {
            for verb in [Method::POST, Method::GET, Method::PUT] {
                let call = mesh.rest().call(verb, path).json(&json!({"userId": user.id})).bearer(&tokens.access);
                call.send().await.refused(Reason::RouteNotFound);
            }
        }
        let call = mesh.rest().call(Method::POST, &colon).json(&json!({})).bearer(&tokens.access);
        assert_eq!(call.send().await.status / 100, 4);
        let grpc = mesh.rest().call(Method::POST, method.path).body("application/grpc", vec![0; 5]);
        grpc.header("te", "trailers").send().await.refused(Reason::RouteNotFound);
    }
    assert!(hidden >= 7, "only {hidden} RPCs have no REST path");
    // In particular, the claims that go into tokens; the services have not been called from the edge for anything here.
    let denied = mesh.metrics().await.sum("drystone_denials_total", &[("caller", "edge"), ("part", "caller")]);
    assert!(denied < 0.5, "the edge itself was denied {denied} calls");
}

#[tokio::test]
async fn keys_and_discovery_are_where_clients_look_for_them() {
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
        assert!(key.get("d").is_none(), "the private key is in the set");
    }

    let discovery = rest.get("/.well-known/openid-configuration").send().await.expect(200).json();
    let base = format!("http://{}", rest.address());
    assert_eq!(discovery["issuer"], base.as_str());
    assert_eq!(discovery["jwks_uri"], format!("{base}/.well-known/jwks.json"));
    assert_eq!(discovery["id_token_signing_alg_values_supported"], json!(["ES256"]));
    assert_eq!(discovery["subject_types_supported"], json!(["public"]));
    assert_eq!(discovery["response_types_supported"], json!([]));
    let names: Vec<&String> = discovery.as_object().unwrap().keys().collect();
    assert!(names.iter().all(|name| !name.contains(char::is_uppercase)), "{names:?} are not those of RFC 8414");
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_what_keeps_browsers_safe() {
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
        register("{").await,
        rest.get("/v1/users/me").header("x-request-id", "two words").send().await,
        rest.get("/v1/users/me").header("x-request-id", &"x".repeat(65)).send().await,
        rest.get("/v1/users/me").header("x-request-id", "").send().await,
    ] {
        let id = answer.header("x-request-id");
        assert!((16..=64).contains(&id.len()) && !id.contains(' ') && seen.insert(id.to_owned()), "`{id}`: {answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
    }
}

#[tokio::test]
async fn the_edge_says_that_it_is_well() {
    let health = Mesh::shared().rest().get("/health").send().await.expect(200);
    assert_eq!(health.json(), json!({"status": "ok"}));
}

/// Sends bytes as they are, and reads until the server ends the connection.
async fn exchange(request: &[u8]) -> String {
    let mut stream = TcpStream::connect(Mesh::shared().rest().address()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn http_that_is_none_is_answered_with_400() {
    for request in [
        &b"GET /v1/users HTTP/1.1\r\nhost: x\r\nbad header\r\nconnection: close\r\n\r\n"[..],
        b"GET /v1/users/\xff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"HELLO\r\n\r\n",
        b"POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\nconnection: close\r\n\r\n",
        b"POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello",
    ] {
        let answer = exchange(request).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{}: {answer}", String::from_utf8_lossy(request));
    }
}

#[tokio::test]
async fn a_connection_goes_on_after_a_refusal() {
    let mut requests = Vec::new();
    for (head, body) in [
        ("GET /nowhere", ""),
        ("POST /v1/auth/login", "{"),
        ("POST /v1/auth/login", r#"{"email":7}"#),
        ("POST /nowhere", r#"{"some":"body"}"#),
        ("DELETE /v1/users/me", ""),
        ("GET /v1/users/me", ""),
    ] {
        let length = body.len();
        let headers = format!("host: x\r\ncontent-type: application/json\r\ncontent-length: {length}");
        requests.push(format!("{head} HTTP/1.1\r\n{headers}\r\n\r\n{body}"));
    }
    requests.push("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned());
    let answers = exchange(requests.concat().as_bytes()).await;
    let statuses: Vec<&str> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["404", "400", "400", "404", "405", "401", "200"], "{answers}");
}

#[tokio::test]
async fn http_2_is_spoken_too() {
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

#[tokio::test]
async fn nothing_that_a_client_sends_is_answered_with_a_fault_of_ours() {
    let mesh = Mesh::shared();
    let (user, tokens) = User::signed_in(mesh).await;
    let routes = [
        (Method::POST, "/v1/auth/register".to_owned()),
        (Method::POST, "/v1/auth/login".to_owned()),
        (Method::POST, "/v1/auth/refresh".to_owned()),
        (Method::PATCH, format!("/v1/users/{}", user.id)),
        (Method::POST, "/v1/properties".to_owned()),
        (Method::POST, "/v1/sessions:revokeAll?x=%00".to_owned()),
        (Method::GET, "/v1/users/me".to_owned()),
    ];
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e308),
        json!(""),
        json!("\u{0}"),
        json!("\u{fffe}\u{202e}"),
        json!("'; DROP TABLE account; --"),
        json!("%s%n../../etc/passwd"),
        json!("x".repeat(100_000)),
        json!([]),
        json!([[[]]]),
        json!({}),
        json!({"": {"": ""}}),
    ];
    let fields = [
        "email",
        "password",
        "displayName",
        "refreshToken",
        "requestId",
        "labels",
        "keepCurrent",
        "id",
        "etag",
        "@type",
        "",
    ];
    for (method, path) in &routes {
        for value in &values {
            for field in fields {
                let mut body = json!({"email": unique_email(), "password": "correct horse", "displayName": "Ada"});
                body[field] = value.clone();
                let call = mesh.rest().call(method.clone(), path).bearer(&tokens.access).json(&body);
                let answer = call.send().await;
                assert!(answer.status < 500, "{method} {path} {field}={value}: {}", answer.text());
            }
        }
    }
}
