//! The example service in Python, built with the commands of its README, in a running mesh.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use drystone_tests::{Home, Mesh, binary, ports::free_addresses, process, process::Process, readme, wait};
use serde_json::json;

const README: &str = "examples/orders-python/README.md";
const ISSUER: &str = "https://id.example.com";

/// The `PYTHONPATH`: the package `drystone_mesh`, and the generated code.
fn search_path(directory: &Path) -> String {
    format!("{}:{}", binary::repository().join("clients/python").display(), directory.display())
}

fn python(directory: &Path) -> Command {
    let mut command = Command::new(readme::tool("python"));
    command.env("PYTHONPATH", search_path(directory)).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(directory);
    command
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// A copy of the example, with its compiled contract.
fn example() -> Home {
    let home = Home::new();
    let source = binary::repository().join("examples/orders-python");
    succeed(Command::new("cp").arg("-R").arg(source.join("proto")).arg(source.join("service.py")).arg(home.path()));
    compile_contract(home.path());
    home
}

fn compile_contract(directory: &Path) {
    let output = readme::run(&format!("set -e\n{}", readme::section_of(README, "contract")), directory);
    assert!(output.status.success(), "{output:?}");
}

/// Generates the clients of Drystone's services that orders_mesh.py needs.
fn generate_clients(directory: &Path) {
    let files = ["auth", "user"].map(|name| format!("drystone/{name}/v1/{name}.proto"));
    succeed(
        python(directory)
            .args(["-m", "grpc_tools.protoc", "--descriptor_set_in=drystone.binpb", "--python_out=."])
            .arg("--grpc_python_out=.")
            .args(files)
            .args(
                ["google/api/annotations", "google/api/field_behavior", "google/api/http"]
                    .map(|n| format!("{n}.proto")),
            ),
    );
}

/// The running service, which is stopped with the test.
struct Service {
    process: Process,
    ready_file: PathBuf,
}

async fn serve(mesh: &Mesh, directory: &Home, listen: &str) -> Service {
    let certificates = mesh.certificates().ca().parent().unwrap().to_owned();
    let certs_dir = certificates.to_str().unwrap();
    let issued = process::run_to_end(&mut process::drystone(&["certs", "issue", "orders", "--certs-dir", certs_dir]));
    assert!(issued.status.success(), "{issued:?}");

    let ready_file = directory.path().join("orders.json");
    let mut command = python(directory.path());
    command.arg("service.py").args(["--platform", "drystone.binpb", "--contract", "orders.binpb"]);
    command.arg("--cert").arg(certificates.join("orders.pem")).arg("--key").arg(certificates.join("orders.key"));
    command.arg("--ca").arg(certificates.join("ca.pem"));
    for service in ["auth", "session"] {
        command.arg(format!("--{service}")).arg(mesh.grpc_address(service).to_string());
    }
    command.args(["--issuer", ISSUER, "--listen", listen, "--ready-file"]).arg(&ready_file);
    let mut process = Process::start(&mut command, &directory.path().join("orders.log"), directory.path());
    wait::until("the Python service is ready", async || {
        assert!(process.exit_status().is_none(), "it has exited: {}", process.log());
        fs::read(&ready_file).ok()
    })
    .await;
    Service { process, ready_file }
}

#[tokio::test]
async fn a_service_in_python_joins_a_running_mesh() {
    let directory = example();
    generate_clients(directory.path());
    let [listen] = free_addresses();
    let contract = json!([directory.path().join("orders.binpb")]).to_string();
    let mesh = Mesh::setup()
        .set("issuer", ISSUER)
        .set("contracts", &contract)
        .set("peers.orders", &listen.to_string())
        .start();
    let service = serve(&mesh, &directory, &listen.to_string()).await;

    let program = binary::repository().join("tests/python/orders_mesh.py");
    let text = succeed(python(directory.path()).arg(program).arg(mesh.ready_file()).arg(&service.ready_file));
    assert!(text.contains("all checks passed"), "{text}\n{}", service.process.log());

    // The edge counts the calls by route.
    let calls = mesh.metrics().await.sum("drystone_edge_requests_total", &[("route", "POST /v1/orders")]);
    assert!(calls >= 1.0, "{calls}");
    let shown = process::run_to_end(process::drystone(&["access", "show"]).env("DRYSTONE_CONTRACTS", &contract));
    assert!(shown.stdout.lines().any(|line| line.contains("acme.orders.v1.OrderService/CreateOrder")), "{shown:?}");
    service.process.stop();
}

#[test]
fn conflicting_contracts_are_refused_at_startup_with_both_file_names() {
    let directory = example();
    fs::copy(directory.path().join("orders.binpb"), directory.path().join("again.binpb")).unwrap();
    for command in [&["up", "--data-dir", "data"][..], &["serve", "edge"], &["access", "show"]] {
        let mut command = process::drystone(command);
        command.env("DRYSTONE_CONTRACTS", r#"["orders.binpb","again.binpb"]"#).current_dir(directory.path());
        let ended = process::run_to_end(&mut command);
        assert!(!ended.status.success(), "{ended:?}");
        for kind in ["service `acme.orders.v1.OrderService`", "workload `orders`"] {
            let conflict = format!("the {kind} is in orders.binpb and in again.binpb");
            assert!(ended.stderr.contains(&conflict), "{conflict}: {ended:?}");
        }
    }
    assert!(!directory.path().join("data").exists(), "nothing is created");
}

#[test]
fn a_limit_named_in_a_contract_must_be_configured() {
    let directory = example();
    let contract = directory.path().join("proto/acme/orders/v1/orders.proto");
    let text = fs::read_to_string(&contract).unwrap();
    let limited = text.replace("policy) = {\n", "policy) = {\n      limit: \"orders\"\n");
    assert_ne!(limited, text);
    fs::write(&contract, limited).unwrap();
    compile_contract(directory.path());

    let show = |limit: Option<&str>| {
        let mut command = process::drystone(&["access", "show"]);
        command.env("DRYSTONE_CONTRACTS", r#"["orders.binpb"]"#).current_dir(directory.path());
        process::run_to_end(command.envs(limit.map(|limit| ("DRYSTONE_LIMITS__CALLS_PER_MINUTE__ORDERS", limit))))
    };
    let unset = show(None);
    let advice =
        "counts calls for the limit `orders`, which is not set; add `orders = 60` under [limits.calls_per_minute]";
    assert!(!unset.status.success() && unset.stderr.contains(advice), "{unset:?}");
    let set = show(Some("60"));
    assert!(set.status.success() && set.stdout.contains("acme.orders.v1.OrderService/ListOrders"), "{set:?}");
    let excessive = show(Some("1000001"));
    assert!(excessive.stderr.contains("limits.calls_per_minute.orders must be at most"), "{excessive:?}");
}

#[test]
fn the_python_package_passes_its_own_tests() {
    let tests = binary::repository().join("clients/python/tests");
    let mut command = Command::new(readme::tool("python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(binary::repository());
    let text = succeed(command.args(["-m", "unittest", "discover", "--start-directory"]).arg(tests));
    let ran = text.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse::<u32>().ok());
    assert!(ran.is_some_and(|ran| ran >= 77) && text.trim_end().ends_with("OK"), "{text}");
}
