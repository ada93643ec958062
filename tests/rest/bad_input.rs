//! Bad input at the REST edge: every request gets a response, and no client error is answered with a 5xx or a dropped
//! connection.

use std::{collections::HashMap, net::SocketAddr};

use bytes::Bytes;
use drystone::Reason;
use drystone_tests::{
    Mesh, RestResponse, User,
    certs::{LeafParams, TRUST_DOMAIN},
    mock_service::{MockResponse, MockService},
    unique_email,
};
use http::Method;
use prost::Message;
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

fn account() -> Value {
    json!({"email": unique_email(), "password": "correct horse", "displayName": "Ada"})
}

async fn register(body: impl Into<Bytes>) -> RestResponse {
    Mesh::shared().rest().request(Method::POST, "/v1/auth/register").body("application/json", body).send().await
}

#[tokio::test]
async fn only_json_is_accepted() {
    let rest = Mesh::shared().rest();
    let post = |content_type| rest.request(Method::POST, "/v1/auth/register").body(content_type, account().to_string());
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
async fn an_oversized_body_is_refused_with_a_readable_response() {
    let mut body = account();
    body["displayName"] = json!("x".repeat(200));
    // Pads with white space, which JSON allows, to the maximum size and one byte more.
    let padded = |size: usize| {
        let text = body.to_string();
        format!("{text}{}", " ".repeat(size - text.len()))
    };
    let refused = register(padded(16 * 1024 * 1024)).await.refused(Reason::BodyTooLarge);
    // The contract bounds all fields of this request, so that its limit is far below the configured one of 1 MiB.
    let limit = refused.text().split(' ').find_map(|word| word.parse::<usize>().ok()).expect("the limit is named");
    assert!(limit < 32 * 1024, "{limit}");
    register(padded(limit)).await.expect(200);
    for size in [limit + 1, 1024 * 1024, 2 * 1024 * 1024] {
        register(padded(size)).await.refused(Reason::BodyTooLarge);
    }
}

#[tokio::test]
async fn a_malformed_json_body_is_refused() {
    let valid = account().to_string();
    let open = &valid[..valid.len() - 1];
    let named = |name: &[u8]| {
        let mut account = account();
        account["displayName"] = json!("NAME");
        let text = account.to_string();
        let (before, after) = text.split_once("NAME").unwrap();
        [before.as_bytes(), name, after.as_bytes()].concat()
    };
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("cut short", open.into()),
        ("not JSON", b"hello".into()),
        ("a second value", format!("{valid}{{}}").into()),
        ("a NUL", format!("{valid}\0").into()),
        ("a byte order mark", format!("\u{feff}{valid}").into()),
        ("bad UTF-8", named(b"\xff")),
        ("overlong UTF-8", named(b"\xc0\xaf")),
        ("a surrogate in UTF-8", named(b"\xed\xa0\x80")),
        ("UTF-16", valid.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("half a surrogate pair", named(br"\ud800")),
        ("a control character", named(b"\x01")),
        ("NaN", valid.replace("\"Ada\"", "NaN").into()),
        ("single quotes", valid.replace('"', "'").into()),
    ];
    for (name, body) in bodies {
        let answer = register(body).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert_eq!(answer.reason(), "MALFORMED_BODY", "{name}: {}", answer.text());
        assert!(answer.body.len() < 2000, "{name}: the response repeats the body: {}", answer.text());
    }
}

#[tokio::test]
async fn deeply_nested_json_is_refused() {
    for (open, close) in [("[", "]"), (r#"{"labels":"#, "}"), (r#"{"x":"#, "}"), (r#"{"displayName":["#, "]}")] {
        // The deepest are larger than any valid body.
        for (depth, status) in [(200, 400), (500, 400), (50_000, 413)] {
            let whole = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            for body in [&whole, &whole[..whole.len() / 2]] {
                let answer = register(body.to_owned()).await;
                assert_eq!(answer.status, status, "{depth} of {open}: {}", answer.text());
                answer.reason();
            }
        }
    }
}

#[tokio::test]
async fn field_violations_use_the_json_name() {
    let with = |changes: Value| {
        let mut body = account();
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        register(body.to_string())
    };
    for (changes, field) in [
        (json!({"displayName": ""}), "displayName"),
        (json!({"displayName": "x".repeat(201)}), "displayName"),
        // Valid by the contract; the service refuses it.
        (json!({"displayName": "\u{200b}"}), "displayName"),
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
    // All violations are reported together, without secret values.
    let answer =
        register(r#"{"email":"x","password":"hunter2","displayName":""}"#).await.refused(Reason::InvalidRequest);
    let mut fields = answer.fields();
    fields.sort_unstable();
    assert_eq!(fields, ["displayName", "email", "password"]);
    assert!(!answer.text().contains("hunter2"), "{}", answer.text());
    // A body that is no object has no fields.
    for body in ["[]", "null", "7", "\"x\"", "[{}]"] {
        let answer = register(body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
}

/// Registers at an auth service whose user service is a mock with this response.
async fn register_with_mock_user_service(answer: Result<Bytes, Status>) -> RestResponse {
    let mesh = Mesh::shared();
    let credentials = mesh.certificates().authority().issue(&LeafParams::of(TRUST_DOMAIN, "user"));
    let user = MockService::start_with_response(credentials, MockResponse::Unary(answer)).await;
    let setup = Mesh::setup().serve(&["auth", "edge"], mesh.certificates());
    let setup = setup.set("peers.user", &user.address().to_string());
    let peers = ["session", "property"];
    let setup = peers
        .iter()
        .fold(setup, |setup, peer| setup.set(&format!("peers.{peer}"), &mesh.grpc_address(peer).to_string()));
    let edge = setup.start();
    let answer = edge.rest().post("/v1/auth/register", account()).send().await;
    assert_eq!(user.calls()[0].path, "/drystone.user.v1.UserService/ProvisionUser");
    answer
}

#[tokio::test]
async fn field_violations_of_an_upstream_use_the_json_name() {
    let mut details = ErrorDetails::with_error_info(Reason::InvalidRequest.name(), Reason::DOMAIN, HashMap::new());
    details.add_bad_request_violation("display_name", "must not be in use already");
    let message = "display_name: must not be in use already";
    let refusal = Status::with_error_details(Code::InvalidArgument, message, details);
    let answer = register_with_mock_user_service(Err(refusal)).await.refused(Reason::InvalidRequest);
    assert_eq!(answer.fields(), ["displayName"], "{}", answer.text());
    let violation = &answer.detail("google.rpc.BadRequest").unwrap()["fieldViolations"][0];
    assert_eq!(violation["description"], "must not be in use already");
    assert!(!answer.text().contains("display_name"), "{}", answer.text());
}

/// Responses are not validated: a service of a newer release may return values that an older contract does not allow.
#[tokio::test]
async fn a_response_that_breaks_the_contract_is_passed_on() {
    let name = "x".repeat(201);
    let user = drystone::user::v1::User { display_name: name.clone(), ..Default::default() };
    let answer = register_with_mock_user_service(Ok(user.encode_to_vec().into())).await.expect(200).json();
    assert_eq!(answer["user"]["displayName"], name);
}

#[tokio::test]
async fn violations_in_path_and_query_name_the_parameter() {
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
async fn a_malformed_grpc_timeout_is_refused_and_a_valid_one_is_enforced() {
    let rest = Mesh::shared().rest();
    let jwks = || rest.get("/.well-known/jwks.json");
    for malformed in ["", "1", "S", "1s", "-1S", "1.5S", "123456789S", "soon", "1S 1S"] {
        jwks().header("grpc-timeout", malformed).send().await.refused(Reason::MalformedTimeout);
    }
    jwks().header("grpc-timeout", "1S").header("grpc-timeout", "1S").send().await.refused(Reason::MalformedTimeout);
    jwks().header("grpc-timeout", "10S").send().await.expect(200);
    // Password hashing takes longer than this timeout.
    let user = User::register(Mesh::shared()).await;
    let body = json!({"email": user.email, "password": user.password});
    let call = rest.post("/v1/auth/login", body).header("grpc-timeout", "1m");
    call.send().await.refused(Reason::DeadlineExceeded);
}

/// Sends raw bytes and reads until the server closes the connection.
async fn exchange(request: &[u8]) -> String {
    exchange_with(Mesh::shared().rest().address(), request).await
}

async fn exchange_with(server: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn malformed_http_is_answered_with_400() {
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
async fn a_connection_stays_open_after_an_error_response() {
    let mut requests = Vec::new();
    for (head, body) in [
        ("GET /nowhere", ""),
        ("POST /v1/auth/login", "{"),
        ("POST /v1/auth/login", r#"{"email":7}"#),
        ("POST /nowhere", r#"{"some":"body"}"#),
        ("PUT /v1/users/me", ""),
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
async fn no_client_input_is_answered_with_a_5xx_status() {
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
                let call = mesh.rest().request(method.clone(), path).bearer(&tokens.access).json(&body);
                let answer = call.send().await;
                assert!(answer.status < 500, "{method} {path} {field}={value}: {}", answer.text());
            }
        }
    }
}

/// Bodies with a duplicate field, one for each field with two names (JSON and proto), nested messages included; and the
/// path of that field.
fn duplicates(message: &MessageDescriptor, depth: usize) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for field in message.fields() {
        let (json, proto) = (field.json_name(), field.name());
        if json != proto {
            found.push((format!(r#"{{"{json}": null, "{proto}": null}}"#), proto.to_owned()));
            found.push((format!(r#"{{"{proto}": null, "{json}": null}}"#), json.to_owned()));
        }
        match field.kind() {
            Kind::Message(inner) if depth > 0 && !field.is_map() && inner.package_name() != "google.protobuf" => {
                for (body, path) in duplicates(&inner, depth - 1) {
                    let (body, item) = if field.is_list() { (format!("[{body}]"), "[0]") } else { (body, "") };
                    found.push((format!(r#"{{"{json}": {body}}}"#), format!("{json}{item}.{path}")));
                }
            }
            _ => {}
        }
    }
    found
}

#[tokio::test]
async fn every_rpc_refuses_a_duplicate_field() {
    let rest = Mesh::shared().rest();
    let (_, tokens) = User::signed_in(Mesh::shared()).await;
    let pool = DescriptorPool::decode(drystone::CONTRACT.descriptor_set()).unwrap();
    let option = pool.get_extension_by_name("google.api.http").unwrap();
    let mut bodies = 0;
    for rpc in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let options = rpc.options();
        let rule = options.get_extension(&option);
        let rule = rule.as_message().unwrap();
        let text = |name: &str| rule.get_field_by_name(name).unwrap().as_str().unwrap_or_default().to_owned();
        let verb = ["post", "patch", "put"].into_iter().find(|verb| rule.has_field_by_name(verb));
        let (Some(verb), body) = (verb, text("body")) else { continue };
        let message = match body.as_str() {
            "" => continue,
            "*" => rpc.input(),
            field => rpc.input().get_field_by_name(field).unwrap().kind().as_message().unwrap().clone(),
        };
        let (before, after) = text(verb).split_once('{').map_or((text(verb), String::new()), |(before, variable)| {
            (before.to_owned(), variable.split_once('}').unwrap().1.to_owned())
        });
        let path = if before == text(verb) { before } else { format!("{before}x{after}") };
        for (body, field) in duplicates(&message, 2) {
            let call = rest.request(verb.to_uppercase().parse().unwrap(), &path).body("application/json", body.clone());
            let answer = call.bearer(&tokens.access).send().await.refused(Reason::InvalidRequest);
            assert_eq!(answer.fields(), [field], "{verb} {path} {body}");
            bodies += 1;
        }
    }
    assert!(bodies >= 8, "only {bodies} request fields have two names");
}

#[tokio::test]
async fn a_request_must_have_one_valid_host() {
    for (port, path) in [("rest", "/health"), ("rest", "/v1/users/me"), ("admin", "/health"), ("admin", "/metrics")] {
        let mesh = Mesh::shared();
        let address = if port == "rest" { mesh.rest().address() } else { mesh.admin_address() };
        for hosts in ["", "host: a\r\nhost: a\r\n", "host: a b\r\n", "host: a@b\r\n", "host:\r\n"] {
            let request = format!("GET {path} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
            let answer = exchange_with(address, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{port} {path} {hosts}: {answer}");
            assert_eq!(answer.contains("INVALID_REQUEST"), port == "rest", "{answer}");
        }
        let good = format!("GET {path} HTTP/1.0\r\n\r\n");
        assert!(!exchange_with(address, good.as_bytes()).await.contains(" 400 "), "{port} {path}");
    }
}
