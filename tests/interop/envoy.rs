//! Envoy with the exported configuration, in front of the services and of the edge.

mod attacks;
mod clients;
mod differences;
mod operation;
mod options;
mod verdicts;

use std::{fs, net::SocketAddr, path::Path};

use drystone_tests::{Envoy, Mesh, RestClient, User, ports::free_addresses, readme};
use serde_json::{Value, json};

/// Runs the curl example of the README at an address; the status and body of each response.
fn run_readme_example(rest: SocketAddr, directory: &Path) -> (Vec<String>, Vec<Value>) {
    // A wrapper around the curl of the README that records status and body, from an address that no proxy has.
    const CURL: &str = r#"curl() { command curl --interface 127.0.0.9 -w '%{stderr}%{http_code}\n' "$@" | tee -a bodies; echo >>bodies; }"#;
    let script = readme::section("walk").replace("http://127.0.0.1:8080", &format!("http://{rest}"));
    let output = readme::run(&format!("{CURL}\n{script}"), directory);
    let statuses: Vec<_> = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    assert_eq!(statuses.len(), script.matches("curl -s ").count(), "each call has a status: {statuses:?}");
    let bodies = fs::read_to_string(directory.join("bodies")).unwrap();
    let bodies: Vec<Value> = bodies.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(bodies.len(), statuses.len(), "each call has a body");
    (statuses, bodies)
}

/// A body with ids, times and tokens replaced, which differ in each run.
fn comparable(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| {
                let value = match name.as_str() {
                    "accessToken" | "refreshToken" | "deviceToken" | "tokenId" => json!("a token"),
                    _ => comparable(value),
                };
                (name, value)
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(comparable).collect(),
        Value::String(text) if text.parse::<uuid::Uuid>().is_ok() => json!("an id"),
        Value::String(text) if text.len() > 19 && text.starts_with("20") && text.ends_with('Z') => json!("a time"),
        other => other,
    }
}

/// The fields in the error responses of these tests: name in the contract, and name in JSON.
const FIELDS: [(&str, &str); 5] = [
    ("id", "id"),
    ("display_name", "displayName"),
    ("property.display_name", "displayName"),
    ("property.labels[\"kind\"]", "labels[\"kind\"]"),
    ("page_size", "pageSize"),
];

/// An error response of Envoy, with the differences listed in docs/envoy.md removed.
fn normalize_error(mut body: Value) -> Value {
    let mut message = body["message"].clone();
    let Some(details) = body.get_mut("details").and_then(Value::as_array_mut) else { return body };
    for detail in details {
        let members = detail.as_object_mut().unwrap();
        match members["@type"].as_str().unwrap() {
            "type.googleapis.com/google.rpc.ErrorInfo" => {
                assert_eq!(members.remove("metadata"), Some(json!({})), "Envoy writes members without a value");
            }
            "type.googleapis.com/google.rpc.BadRequest" => {
                let violations = members["fieldViolations"].as_array_mut().unwrap();
                let before = summary(violations);
                for violation in violations.iter_mut() {
                    let violation = violation.as_object_mut().unwrap();
                    assert_eq!(violation.remove("reason"), Some(json!("")), "Envoy writes members without a value");
                    let known = FIELDS.into_iter().find(|(contract, _)| violation["field"] == *contract);
                    let (_, json) = known.unwrap_or_else(|| panic!("unknown field: {violation:?}"));
                    violation.insert("field".to_owned(), json!(json));
                }
                assert_eq!(message, before, "message and details name the same fields");
                message = json!(summary(violations));
            }
            other => panic!("unexpected detail {other}"),
        }
    }
    body["message"] = message;
    body
}

/// The message of an error with these violations.
fn summary(violations: &[Value]) -> String {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let lines = violations.iter().map(|one| format!("{}: {}", text(&one["field"]), text(&one["description"])));
    lines.collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn the_readme_example_returns_the_same_through_envoy_and_edge() {
    // Two meshes, since both runs register the user of the README.
    let (edge_mesh, envoy_mesh) = (Mesh::start(), Mesh::start());
    let envoy = Envoy::start(&envoy_mesh).await;
    let (statuses, bodies) = run_readme_example(edge_mesh.rest().address(), edge_mesh.home().path());
    let through_envoy = run_readme_example(envoy.address, envoy_mesh.home().path());
    assert_eq!(through_envoy.0, statuses);
    let normalized = through_envoy.1.into_iter().map(|body| comparable(normalize_error(body)));
    assert_eq!(normalized.collect::<Vec<_>>(), bodies.into_iter().map(comparable).collect::<Vec<_>>());
}

#[tokio::test]
async fn envoy_and_edge_return_the_same_responses() {
    let mesh = Mesh::start();
    let envoy = Envoy::start(&mesh).await;
    let (_, tokens) = User::signed_in(&mesh).await;
    let (edge, envoy) = (mesh.rest(), envoy.rest());
    let body = json!({"displayName": "Barn", "labels": {"kind": "building"}});
    let created = edge.post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200).json();
    let property = format!("/v1/properties/{}", created["id"].as_str().unwrap());
    for path in [
        &property,
        "/v1/users/me",
        "/v1/properties",
        "/v1/properties?pageSize=1",
        "/v1/sessions",
        "/.well-known/jwks.json",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
    ] {
        let expected = edge.get(path).bearer(&tokens.access).send().await.expect(200);
        let found = envoy.get(path).bearer(&tokens.access).send().await.expect(200);
        assert_eq!(found.json(), expected.json(), "{path}");
        assert_eq!(found.header("cache-control"), "no-store", "{path}");
    }

    let error_responses = async |rest: &RestClient| {
        let missing = rest.get("/v1/users/me").send().await;
        let absent =
            rest.get("/v1/properties/01890000-0000-7000-8000-000000000000").bearer(&tokens.access).send().await;
        let no_id = rest.get("/v1/properties/no-id").bearer(&tokens.access).send().await;
        let invalid = json!({"displayName": ""});
        let invalid = rest.post("/v1/properties", invalid).bearer(&tokens.access).send().await;
        let long = json!({"displayName": "x".repeat(201), "labels": {"kind": "y".repeat(1000)}});
        let update = rest.patch(&property, long).bearer(&tokens.access).send().await;
        let page = rest.get("/v1/properties?pageSize=201").bearer(&tokens.access).send().await;
        let login = json!({"email": "nobody@example.org", "password": "not the password"});
        let credentials = rest.post("/v1/auth/login", login).send().await;
        let stale = rest.patch(&property, json!({"displayName": "Shed", "etag": "v9"})).bearer(&tokens.access);
        let stale = stale.send().await;
        let forbidden = rest.get("/v1/users").bearer(&tokens.access).send().await;
        [missing, absent, no_id, invalid, update, page, credentials, stale, forbidden]
            .map(|answer| (answer.status, answer.json()))
    };
    let expected = error_responses(&edge).await;
    assert_eq!(expected.each_ref().map(|(status, _)| *status), [401, 404, 400, 400, 400, 400, 401, 409, 403]);
    assert_eq!(error_responses(&envoy).await.map(|(status, body)| (status, normalize_error(body))), expected);
}

#[tokio::test]
async fn the_readme_example_returns_the_same_through_envoy_in_front_of_the_edge() {
    let mesh = Mesh::start();
    let behind = Mesh::setup().set("edge.trusted_proxies", r#"["127.0.0.1"]"#).start();
    let edges = format!("[\"{}\"]", behind.rest().address());
    let envoy = Envoy::of("edge", &behind, &[("envoy.edges", &edges)]).await;
    let (statuses, bodies) = run_readme_example(mesh.rest().address(), mesh.home().path());
    let through_envoy = run_readme_example(envoy.address, behind.home().path());
    assert_eq!(through_envoy.0, statuses);
    let comparable = |bodies: Vec<Value>| bodies.into_iter().map(comparable).collect::<Vec<_>>();
    for (found, expected) in comparable(through_envoy.1).into_iter().zip(comparable(bodies)) {
        assert_eq!(found, expected);
    }
    // The edge sees the client's address, and not Envoy's: Envoy overwrites what the client says.
    let user = User::register_at(envoy.rest()).await;
    let body = json!({"email": user.email, "password": user.password});
    envoy.rest().post("/v1/auth/login", body).header("x-forwarded-for", "192.0.2.66").send().await.expect(200);
}

/// The commands of docs/envoy.md, from the export to the first request.
#[test]
fn the_documented_commands_lead_to_a_request() {
    let mesh = Mesh::start();
    let [address, admin] = free_addresses();
    let environment = Envoy::environment(&mesh, address, admin);
    let script = readme::section_of("docs/envoy.md", "envoy").replace("127.0.0.1:8443", &address.to_string());
    let script = script.replace("envoy --config-path", "envoy --disable-hot-restart --concurrency 1 --config-path");
    let output = readme::run_with(&script, mesh.home().path(), environment);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("\"keys\":["), "{output:?}");
}
