//! The tutorial, by its own commands: a service of another team, from `drystone new service` to `cargo test`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use drystone::Reason;
use drystone_tests::{Home, Mesh, binary, logs, readme};
use serde_json::{Value, json};

/// The directory in which the tutorial is followed.
struct Reader(Home);

impl Reader {
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

/// What makes Cargo use what the workspace has compiled already, and nothing from the network. What another build would
/// notice as changed (the profile, the value of PROTOC) is as it is in the workspace.
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
fn start(reader: &Reader) -> Mesh {
    let command = section("up");
    assert!(command.ends_with(" up"), "{command}");
    let with_arguments = command.replace(" up", " \"$@\"");
    // Compiled first: a mesh is given a minute to become ready.
    succeed(&reader.run("cargo build", &[]));
    let exports: Vec<_> =
        cargo_environment().iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
    let exports = exports.concat();
    let script = reader
        .0
        .write("run", &format!("#!/bin/sh\n{exports}cd '{}'\nexec {with_arguments}\n", reader.service().display()));
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Mesh::setup().binary(script).set("log.format", "json").start()
}

/// The commands at the addresses of this mesh.
fn for_mesh(mesh: &Mesh, script: &str) -> String {
    let certificates = mesh.certificates().ca().parent().unwrap().display().to_string();
    script
        .replace("http://127.0.0.1:8080", &format!("http://{}", mesh.rest().address()))
        .replace("http://127.0.0.1:8081", &format!("http://{}", mesh.admin_address()))
        .replace("127.0.0.1:50055", &mesh.grpc_address("orders").to_string())
        .replace("certs/dev", &certificates)
}

fn assert_called(mesh: &Mesh, reader: &Reader) {
    let script = ["users", "calls", "refusals"].map(section).join("\n");
    let answers = objects(&succeed(&reader.run(&for_mesh(mesh, &script), &[])));
    let [created, ada, bob, no_token, invalid] = answers.as_slice() else { panic!("{answers:#?}") };
    assert_eq!(created["displayName"], "Anvil");
    assert_eq!(ada, &json!({"orders": [created], "nextPageToken": ""}));
    assert_eq!(bob, &json!({"orders": [], "nextPageToken": ""}), "another user's orders are not seen");
    assert_eq!(reason(no_token), Reason::TokenMissing.name(), "{no_token}");
    assert_eq!(reason(invalid), Reason::InvalidRequest.name(), "{invalid}");
    assert!(invalid.to_string().contains("displayName"), "{invalid}");

    // Cargo writes into the same log, in words.
    let log = mesh.log();
    let events = logs::events(&log[log.find('{').unwrap_or_default()..]);
    let records = events.iter().filter(|event| event["target"] == "audit");
    let codes: Vec<_> = records
        .filter(|event| logs::field(event, "method") == "/acme.orders.v1.OrderService/CreateOrder")
        .map(|event| event["code"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(codes, ["Ok", "InvalidArgument"], "each call of CreateOrder is in the audit log");
}

fn assert_inspected(mesh: &Mesh, reader: &Reader) {
    readme::tool("grpcurl");
    let certificates = mesh.certificates().ca().parent().unwrap().display().to_string();
    let environment =
        [("DRYSTONE_DATA_DIR", mesh.home().data().display().to_string()), ("DRYSTONE_CERTS_DIR", certificates)];
    let text = succeed(&reader.run(&for_mesh(mesh, &format!("set -e\n{}", section("inspect"))), &environment));
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
    let exported = fs::read(reader.service().join("mesh.binpb")).unwrap();
    let files = drystone::contract::files::files(&exported).unwrap();
    assert!(files.iter().any(|file| file.name == "acme/orders/v1/orders.proto"));
}

fn assert_changed(reader: &Reader) {
    let contract = reader.service().join("proto/acme/orders/v1/orders.proto");
    let original = fs::read_to_string(&contract).unwrap();
    let refused = reader.run(&section("change"), &[]);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && complaint.contains("`orders:create`"), "{complaint}");
    let proto = [("PROTO", "proto/acme/orders/v1/orders.proto".to_owned())];
    let shown = succeed(&reader.run(&section("declare"), &proto));
    assert!(shown.lines().any(|line| line.contains("CreateOrder") && line.contains("orders:create")), "{shown}");
    succeed(&reader.run(&section("undo"), &proto));
    assert_eq!(fs::read_to_string(&contract).unwrap(), original);
}

/// The script finds a protoc: the rest of this test uses that of the workspace.
fn assert_protoc(directory: &Path) {
    let version = Command::new(directory.join(".cargo/protoc")).arg("--version").output().unwrap();
    assert!(succeed(&version).starts_with("libprotoc "), "{version:?}");
}

#[test]
fn the_tutorial_works_as_it_is_written() {
    let reader = Reader::new();
    let script = format!("set -e\n{}\npwd", section("new"));
    let output = readme::run(&script, reader.0.path());
    assert!(succeed(&output).trim_end().ends_with("/orders"));
    assert_protoc(&reader.service());
    // The versions of dependencies that the workspace has compiled.
    fs::copy(binary::repository().join("Cargo.lock"), reader.service().join("Cargo.lock")).unwrap();

    let mesh = start(&reader);
    assert_called(&mesh, &reader);
    assert_inspected(&mesh, &reader);
    drop(mesh.stop());
    assert_changed(&reader);
    let output = succeed(&reader.run(&section("test"), &[]));
    assert!(output.contains("test a_user_sees_their_own_orders ... ok"), "{output}");

    // A name that is there already is refused, and nothing of it is touched.
    let again = readme::run("drystone new service orders", reader.0.path());
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"), "{again:?}");
}
