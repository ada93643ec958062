//! Envoy in front of the edge, which learns the client's address from Envoy.

use std::process::Command;

use drystone_tests::{Envoy, Home, Mesh, Setup, User, process, walk::Walk};
use serde_json::{Value, json};

fn behind_a_proxy() -> Setup {
    Mesh::setup().set("edge.trusted_proxies", r#"["127.0.0.1"]"#)
}

#[tokio::test]
async fn the_readme_example_returns_the_same_through_envoy_in_front_of_the_edge() {
    let (mesh, behind) = (Mesh::start(), behind_a_proxy().start());
    let envoy = Envoy::of_edges(&[behind.rest().address()], &[]).await;
    let expected = Walk::run(mesh.rest().address(), mesh.home().path());
    assert_eq!(Walk::run(envoy.address, behind.home().path()), expected);
    // The edge sees the client's address, and not Envoy's: Envoy overwrites what the client says.
    assert_eq!(address_of_session(&envoy, "192.0.2.66").await, "127.0.0.9");
}

#[tokio::test]
async fn the_proxy_protocol_states_the_client_of_each_connection() {
    let (mesh, behind) = (Mesh::start(), behind_a_proxy().set("edge.proxy_protocol", "true").start());
    let settings = [("edge.trusted_proxies", r#"["127.0.0.1"]"#), ("edge.proxy_protocol", "true")];
    let envoy = Envoy::of_edges(&[behind.rest().address()], &settings).await;
    let expected = Walk::run(mesh.rest().address(), mesh.home().path());
    assert_eq!(Walk::run(envoy.address, behind.home().path()), expected);
    assert_eq!(address_of_session(&envoy, "192.0.2.66").await, "127.0.0.9");
    let direct = behind.rest().get("/health").try_send().await;
    assert!(direct.is_err(), "a connection without the header is closed: {direct:?}");
}

/// Envoy states its peer, and not the client that a proxy in front of it names.
#[test]
fn the_proxy_protocol_excludes_a_proxy_in_front_of_envoy() {
    let home = Home::new();
    let mut export = process::drystone(&["export", "envoy", "--of", "edge", "--output"]);
    export.arg(home.path().join("envoy")).env("DRYSTONE_EDGE__PROXY_PROTOCOL", "true");
    export.env("DRYSTONE_EDGE__TRUSTED_PROXIES", r#"["10.0.0.7"]"#).env("DRYSTONE_ENVOY__TRUSTED_HOPS", "1");
    let output = process::run_to_end(&mut export);
    assert!(!output.status.success() && output.stderr.contains("exclude each other"), "{output:?}");
}

/// The address of a new session, of a client at 127.0.0.9 that claims another address. (In place of 127.0.0.1 Envoy reports
/// an address of its host.)
async fn address_of_session(envoy: &Envoy, claimed: &str) -> String {
    let user = User::register_at(envoy.rest()).await;
    let body = json!({"email": user.email, "password": user.password});
    let mut curl = Command::new("curl");
    curl.args(["-s", "--interface", "127.0.0.9", "--json", &body.to_string()]);
    curl.arg("--header").arg(format!("x-forwarded-for: {claimed}"));
    let output = process::run_to_end(curl.arg(format!("http://{}/v1/auth/login", envoy.address)));
    let signed_in: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let access = signed_in["accessToken"].as_str().unwrap();
    let listed = envoy.rest().get("/v1/sessions").bearer(access).send().await.expect(200).json();
    listed["sessions"][0]["address"].as_str().unwrap().to_owned()
}
