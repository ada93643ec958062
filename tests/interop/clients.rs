//! Third-party clients: the commands of the README with curl, grpcurl, Python and protoc.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use drystone::Reason;
use drystone_tests::{Home, Mesh, User, methods, process, readme, workloads};
use serde_json::Value;

#[track_caller]
fn succeed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "it failed with {}: {text}\n{errors}", output.status);
    text
}

/// The commands with the addresses and certificates of this mesh.
fn for_mesh(mesh: &Mesh, script: &str) -> String {
    let certificates = mesh.certificates().ca().parent().unwrap().display().to_string();
    let replacements = [
        ("http://127.0.0.1:8080", format!("http://{}", mesh.rest().address())),
        ("127.0.0.1:50052", mesh.grpc_address("user").to_string()),
        ("certs/dev", certificates),
        ("target/debug/drystone", "drystone".to_owned()),
        ("target/drystone.binpb", "drystone.binpb".to_owned()),
        ("data/mail", mesh.home().data().join("mail").display().to_string()),
    ];
    replacements.iter().fold(script.to_owned(), |script, (from, to)| {
        assert!(!from.starts_with("127") || !script.contains("127.0.0.1:5005") || script.contains(from), "{script}");
        script.replace(from, to)
    })
}

/// The lines that are JSON objects.
fn objects(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
}

#[test]
fn the_readme_curl_example_works() {
    // Its own mesh: the e-mail address is that of the README.
    let mesh = Mesh::start();
    let output = readme::run(&for_mesh(&mesh, &readme::section("walk")), mesh.home().path());
    let text = succeed(&output);
    let answers = objects(&text);
    let refused: Vec<_> = answers.iter().filter(|answer| answer.get("code").is_some()).collect();
    assert_eq!(refused.len(), 1, "{text}");
    assert!(text.contains("HTTP/1.1 401 Unauthorized"), "{text}");
    assert_eq!(refused[0]["details"][0]["reason"], "TOKEN_REVOKED", "{text}");
    let last = answers.last().unwrap();
    assert_eq!(last, refused[0], "the last call is refused: {text}");
    assert_eq!(answers[0]["user"]["displayName"], "Ada");
    assert!(answers.iter().any(|answer| answer["displayName"] == "Ada Lovelace"), "{text}");
    assert!(answers.iter().any(|answer| answer["properties"][0]["labels"]["kind"] == "machine"), "{text}");
    assert!(answers.iter().any(|answer| answer["sessions"][0]["current"] == true), "{text}");
}

#[test]
fn the_readme_example_of_a_forgotten_password_works() {
    let mesh = Mesh::start();
    let script = format!("{}\necho ---\n{}", readme::section("walk"), readme::section("forgotten"));
    let output = readme::run(&for_mesh(&mesh, &script), mesh.home().path());
    let text = succeed(&output);
    let answers = objects(text.split_once("---\n").unwrap().1);
    assert_eq!(answers.len(), 3, "{text}");
    assert_eq!(answers[1]["sessionsEnded"], true, "{text}");
    assert!(answers[2]["accessToken"].is_string(), "{text}");
}

#[test]
fn the_readme_grpcurl_example_works() {
    let mesh = Mesh::start();
    readme::tool("grpcurl");
    let [walk, forgotten, grpcurl] = ["walk", "forgotten", "grpcurl"].map(readme::section);
    let script = format!("{walk}\n{forgotten}\necho ---\n{grpcurl}");
    let output = readme::run(&for_mesh(&mesh, &format!("exec 2>&1\n{script}")), mesh.home().path());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = text.split_once("---\n").unwrap().1;

    // `list`, and `describe` with the rule.
    for service in ["drystone.user.v1.UserService", "grpc.health.v1.Health"] {
        assert!(text.lines().any(|line| line == service), "{service} is not listed: {text}");
    }
    assert!(text.contains("rpc ListUsers"), "{text}");
    for part in ["drystone.access.v1.rule", "outside", "operator", "SUBJECT_USER", "users:read"] {
        assert!(text.contains(part), "the rule is not described with {part}: {text}");
    }
    // A call.
    assert!(text.contains("\"displayName\": \"Ada Lovelace\""), "{text}");
    assert!(text.contains("\"roles\": ["), "{text}");
    // Three refused calls, in this order.
    let mut rest = text;
    for refusal in ["certificate", "may not call", Reason::TokenMissing.name()] {
        let at = rest.find(refusal).unwrap_or_else(|| panic!("no refusal for {refusal} in: {rest}\nall of it: {text}"));
        rest = &rest[at + refusal.len()..];
    }
    assert!(text.contains("Code: PermissionDenied") && text.contains("Code: Unauthenticated"), "{text}");
}

fn grpcurl(mesh: &Mesh, workload: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(readme::tool("grpcurl"));
    command.arg("-cacert").arg(mesh.certificates().ca());
    if let Some(workload) = workload {
        let [certificate, key] = mesh.certificates().files_of(workload);
        command.arg("-cert").arg(certificate).arg("-key").arg(key);
    }
    command.args(arguments).output().unwrap()
}

#[tokio::test]
async fn grpcurl_lists_and_describes_every_service() {
    let mesh = Mesh::shared();
    let served: BTreeSet<_> = methods().iter().map(|method| (&*method.workload, method.service())).collect();
    for (workload, name) in served {
        let address = mesh.grpc_address(workload).to_string();
        let listed = succeed(&grpcurl(mesh, Some("operator"), &[&address, "list"]));
        assert!(listed.lines().any(|line| line == name), "{listed}");
        let described = succeed(&grpcurl(mesh, Some("operator"), &[&address, "describe", name]));
        let (rpcs, rules) = (described.matches("rpc ").count(), described.matches("drystone.access.v1.rule").count());
        assert!(rpcs > 0 && rpcs == rules, "{described}");
    }
}

#[tokio::test]
async fn reflection_is_allowed_only_for_the_operator() {
    let mesh = Mesh::shared();
    let address = mesh.grpc_address("user").to_string();
    for workload in workloads().into_iter().filter(|name| *name != "operator") {
        let output = grpcurl(mesh, Some(workload), &[&address, "list"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("may not call"), "{workload}: {errors}");
    }
    let output = grpcurl(mesh, None, &["-max-time", "5", &address, "list"]);
    assert!(!output.status.success(), "{output:?}");
}

#[tokio::test]
async fn grpcurl_calls_as_a_user_with_a_token() {
    let mesh = Mesh::shared();
    let (user, tokens) = User::signed_in(mesh).await;
    let (address, token) = (mesh.grpc_address("user").to_string(), format!("authorization: Bearer {}", tokens.access));
    let method = "drystone.user.v1.UserService/GetMe";
    let answer: Value =
        serde_json::from_str(&succeed(&grpcurl(mesh, Some("operator"), &["-H", &token, &address, method]))).unwrap();
    assert_eq!(answer["email"], user.email.as_str());
}

fn export(directory: &Path) -> PathBuf {
    let path = directory.join("drystone.binpb");
    let exported = process::run_to_end(process::drystone(&["contract", "export", "--output"]).arg(&path));
    assert!(exported.status.success(), "{exported:?}");
    path
}

#[test]
fn the_exported_contract_equals_the_embedded_one() {
    let home = Home::new();
    assert!(fs::read(export(home.path())).unwrap() == drystone::CONTRACT.descriptor_set());
    let piped = Command::new(drystone_tests::binary::drystone()).args(["contract", "export"]).output().unwrap();
    assert!(piped.status.success() && piped.stdout == drystone::CONTRACT.descriptor_set());
}

#[test]
fn the_readme_python_client_is_generated_and_works() {
    let mesh = Mesh::shared();
    readme::tool("python");
    let home = Home::new();
    let script = readme::section("python-client");
    assert_eq!(readme::commands(&script).len(), 2, "{script}");
    succeed(&readme::run(&script, home.path()));

    // The program imports the generated code.
    let program = drystone_tests::binary::repository().join("tests/clients/call.py");
    let output = Command::new(readme::tool("python"))
        .arg(program)
        .arg(mesh.ready_file())
        .env("PYTHONPATH", readme::generated_python(home.path()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(succeed(&output).contains("all checks passed"), "{output:?}");
}

/// authlib, joserfc and PyJWT implement RFC 9068, RFC 7517 and RFC 8414.
#[test]
fn third_party_libraries_validate_tokens_key_set_and_metadata() {
    validate_with_third_party_libraries(Mesh::shared(), "ES256");
}

#[test]
fn third_party_libraries_validate_tokens_of_every_algorithm() {
    for (algorithm, rsa_bits) in [("EdDSA", "2048"), ("RS256", "2048"), ("RS256", "3072")] {
        let setup = Mesh::setup().set("auth.signing_keys.algorithm", algorithm);
        validate_with_third_party_libraries(&setup.set("auth.signing_keys.rsa_bits", rsa_bits).start(), algorithm);
    }
}

fn validate_with_third_party_libraries(mesh: &Mesh, algorithm: &str) {
    let program = drystone_tests::binary::repository().join("tests/clients/tokens.py");
    let output = Command::new(readme::tool("python"))
        .arg(program)
        .arg(format!("http://{}", mesh.rest().address()))
        .arg(algorithm)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(succeed(&output).contains("all checks passed"), "{output:?}");
}

#[test]
fn protoc_generates_code_from_the_exported_contract() {
    let home = Home::new();
    let contract = export(home.path());
    // The prebuilt protoc of the build.
    let output = Command::new(drystone_tests::binary::repository().join("build/protoc"))
        .arg(format!("--descriptor_set_in={}", contract.display()))
        .arg(format!("--python_out={}", home.path().display()))
        .args(["drystone/user/v1/user.proto", "buf/validate/validate.proto", "google/api/annotations.proto"])
        .output()
        .unwrap();
    succeed(&output);
    assert!(home.path().join("drystone/user/v1/user_pb2.py").is_file());
}
