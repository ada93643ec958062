//! Runs the commands of the tutorial, from `drystone new service` to `cargo test`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use drystone::Reason;
use drystone_tests::{Home, Mesh, binary, logs, readme};
use serde_json::{Value, json};

/// The working directory of the tutorial.
struct Workspace(Home);

impl Workspace {
    fn new() -> Self {
        Self(Home::new())
    }

    fn service(&self) -> PathBuf {
        self.0.path().join("orders")
    }

    /// Runs commands in the directory of the service.
    fn run(&self, script: &str, extra: &[(&str, String)]) -> Output {
        let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        readme::run_with(script, &self.service(), cargo_environment().into_iter().chain(extra))
    }
}

/// Makes Cargo reuse the compiled dependencies of the workspace, without network access. Settings that would cause a
/// rebuild (profile, PROTOC) have the values of the workspace.
fn cargo_environment() -> Vec<(String, String)> {
    let target = binary::profile_directory().parent().unwrap().display().to_string();
    let protoc = binary::repository().join("build/protoc").display().to_string();
    let variables = [
        ("CARGO_TARGET_DIR", target.as_str()),
        ("CARGO_NET_OFFLINE", "true"),
        ("CARGO_PROFILE_DEV_DEBUG", "line-tables-only"),
        ("PROTOC", &protoc),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn section(name: &str) -> String {
    readme::section_of("docs/tutorial.md", name)
}

#[track_caller]
fn succeed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
}

fn reason(answer: &Value) -> &str {
    let details = answer["details"].as_array().map(Vec::as_slice).unwrap_or_default();
    details.iter().find_map(|detail| detail["reason"].as_str()).unwrap_or_default()
}

/// Starts the mesh with the tutorial's command, on free ports.
fn start(workspace: &Workspace) -> Mesh {
    let command = section("up");
    assert!(command.ends_with(" up"), "{command}");
    let with_arguments = command.replace(" up", " \"$@\"");
    // Compiled first, since a mesh has a minute to become ready.
    succeed(&workspace.run("cargo build", &[]));
    let exports: Vec<_> =
        cargo_environment().iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
    let exports = exports.concat();
    let script = workspace
        .0
        .write("run", &format!("#!/bin/sh\n{exports}cd '{}'\nexec {with_arguments}\n", workspace.service().display()));
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Mesh::setup().binary(script).set("log.format", "json").start()
}

/// The commands with the addresses of this mesh.
fn for_mesh(mesh: &Mesh, script: &str) -> String {
    let certificates = mesh.certificates().ca().parent().unwrap().display().to_string();
    script
        .replace("http://127.0.0.1:8080", &format!("http://{}", mesh.rest().address()))
        .replace("http://127.0.0.1:8081", &format!("http://{}", mesh.admin_address()))
        .replace("127.0.0.1:50055", &mesh.grpc_address("orders").to_string())
        .replace("certs/dev", &certificates)
}

fn assert_called(mesh: &Mesh, workspace: &Workspace) {
    let script = ["users", "calls", "refusals"].map(section).join("\n");
    let answers = objects(&succeed(&workspace.run(&for_mesh(mesh, &script), &[])));
    let [created, ada, bob, no_token, invalid] = answers.as_slice() else { panic!("{answers:#?}") };
    assert_eq!(created["displayName"], "Anvil");
    assert_eq!(ada, &json!({"orders": [created], "nextPageToken": ""}));
    assert_eq!(bob, &json!({"orders": [], "nextPageToken": ""}), "orders of another user are not visible");
    assert_eq!(reason(no_token), Reason::TokenMissing.name(), "{no_token}");
    assert_eq!(reason(invalid), Reason::InvalidRequest.name(), "{invalid}");
    assert!(invalid.to_string().contains("displayName"), "{invalid}");

    // The output of Cargo is in the same file.
    let log = mesh.log();
    let events = logs::events(&log[log.find('{').unwrap_or_default()..]);
    let records = events.iter().filter(|event| event["target"] == "audit");
    let codes: Vec<_> = records
        .filter(|event| logs::field(event, "method") == "/acme.orders.v1.OrderService/CreateOrder")
        .map(|event| event["code"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(codes, ["Ok", "InvalidArgument"], "each call of CreateOrder is in the audit log");
}

fn assert_inspected(mesh: &Mesh, workspace: &Workspace) {
    readme::tool("grpcurl");
    let certificates = mesh.certificates().ca().parent().unwrap().display().to_string();
    let environment =
        [("DRYSTONE_DATA_DIR", mesh.home().data().display().to_string()), ("DRYSTONE_CERTS_DIR", certificates)];
    let text = succeed(&workspace.run(&for_mesh(mesh, &format!("set -e\n{}", section("inspect"))), &environment));
    let line = |parts: &[&str]| {
        assert!(text.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?} in: {text}");
    };
    line(&["acme.orders.v1.OrderService/CreateOrder", "outside operator", "user", "log", "POST /v1/orders"]);
    line(&["acme.orders.v1.OrderService/ListOrders", "GET /v1/orders"]);
    line(&["orders", "orders.db"]);
    line(&["spiffe://drystone.local/service/orders"]);
    line(&["drystone_calls_total", "CreateOrder", "edge", "OK"]);
    line(&["rpc CreateOrder"]);
    line(&["SUBJECT_USER"]);
    let health = objects(&text);
    let health = health.iter().find(|object| object["components"].is_object()).unwrap_or_else(|| panic!("{text}"));
    for component in ["orders database", "orders -> auth", "orders -> session"] {
        assert_eq!(health["components"][component]["state"], "up", "{component}: {health:#}");
    }
    let exported = fs::read(workspace.service().join("mesh.binpb")).unwrap();
    let files = drystone::contract::files::files(&exported).unwrap();
    assert!(files.iter().any(|file| file.name == "acme/orders/v1/orders.proto"));
}

fn assert_changed(workspace: &Workspace) {
    let contract = workspace.service().join("proto/acme/orders/v1/orders.proto");
    let original = fs::read_to_string(&contract).unwrap();
    let refused = workspace.run(&section("change"), &[]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("`orders:create`"), "{error}");
    let proto = [("PROTO", "proto/acme/orders/v1/orders.proto".to_owned())];
    let shown = succeed(&workspace.run(&section("declare"), &proto));
    assert!(shown.lines().any(|line| line.contains("CreateOrder") && line.contains("orders:create")), "{shown}");
    succeed(&workspace.run(&section("undo"), &proto));
    assert_eq!(fs::read_to_string(&contract).unwrap(), original);
}

/// The generated script finds a protoc. The rest of this test uses the one of the workspace.
fn assert_protoc(directory: &Path) {
    let version = Command::new(directory.join(".cargo/protoc")).arg("--version").output().unwrap();
    assert!(succeed(&version).starts_with("libprotoc "), "{version:?}");
}

#[test]
fn the_tutorial_works_as_written() {
    let workspace = Workspace::new();
    let script = format!("set -e\n{}\npwd", section("new"));
    let output = readme::run(&script, workspace.0.path());
    assert!(succeed(&output).trim_end().ends_with("/orders"));
    assert_protoc(&workspace.service());
    // The dependency versions that the workspace has compiled.
    fs::copy(binary::repository().join("Cargo.lock"), workspace.service().join("Cargo.lock")).unwrap();

    let mesh = start(&workspace);
    assert_called(&mesh, &workspace);
    assert_inspected(&mesh, &workspace);
    drop(mesh.stop());
    assert_changed(&workspace);
    let output = succeed(&workspace.run(&section("test"), &[]));
    assert!(output.contains("test a_user_sees_their_own_orders ... ok"), "{output}");

    // An existing directory is refused.
    let again = readme::run("drystone new service orders", workspace.0.path());
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"), "{again:?}");
}
