//! Envoy with the exported configuration, in front of the services and of the edge.

mod attacks;
mod clients;
mod differences;
mod edges;
mod fixture;
mod operation;
mod options;
mod verdicts;

use drystone_tests::{
    Envoy, Mesh, RestClient, User,
    ports::free_addresses,
    readme,
    walk::{Walk, without_differences_of_envoy},
};
use serde_json::json;

#[tokio::test]
async fn the_readme_example_returns_the_same_through_envoy_and_edge() {
    // Two meshes, since both runs register the user of the README.
    let (edge_mesh, envoy_mesh) = (Mesh::start(), Mesh::start());
    let envoy = Envoy::start(&envoy_mesh).await;
    let through_edge = Walk::run(edge_mesh.rest().address(), edge_mesh.home().path());
    let through_envoy = Walk::run(envoy.address, envoy_mesh.home().path());
    assert_eq!(through_envoy.without_differences_of_envoy(), through_edge);
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
        [missing, absent, no_id, invalid, update, page, credentials, stale, forbidden].map(|answer| {
            let headers = ["www-authenticate", "retry-after"].map(|name| answer.header(name).to_owned());
            (answer.status, headers, answer.json())
        })
    };
    let expected = error_responses(&edge).await;
    assert_eq!(expected.each_ref().map(|(status, ..)| *status), [401, 404, 400, 400, 400, 400, 401, 409, 403]);
    assert_eq!(
        error_responses(&envoy).await.map(|(status, headers, body)| (
            status,
            headers,
            without_differences_of_envoy(body)
        )),
        expected
    );
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
