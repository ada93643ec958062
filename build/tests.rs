//! A contract that leaves a question open does not build, and the refusal names the RPC and what is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

#[path = "comments.rs"]
mod comments;
#[path = "contract.rs"]
mod contract;
#[path = "protoc.rs"]
mod protoc;

use std::{fs, path::Path};

use contract::{Contract, Refused};

/// Compiles one file, as a contract of the service `stone`, together with the options that rules are written in.
fn read(source: &str) -> Result<Contract, Refused> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("proto");
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    for file in ["google/api/http.proto", "google/api/annotations.proto", "drystone/access/v1/access.proto"] {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::copy(ours.join(file), root.join(file)).unwrap();
    }
    let file = root.join("drystone/stone/v1/stone.proto");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let head = "syntax = \"proto3\"; package drystone.stone.v1; \
                import \"drystone/access/v1/access.proto\"; import \"google/api/annotations.proto\"; \
                message M {}\n";
    fs::write(&file, format!("{head}{source}")).unwrap();
    let descriptor_set = protoc::compile(&root, &protoc::files_under(&root).unwrap(), folder.path()).expect("protoc");
    Contract::read(&descriptor_set)
}

/// The one finding about a service whose single RPC `Lay` has these options.
fn finding(options: &str) -> String {
    let refused = read(&format!("service StoneService {{ rpc Lay(M) returns (M) {{ {options} }} }}"));
    let findings = refused.err().expect("the contract was let through").0;
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.into_iter().next().unwrap()
}

const RULE: &str = "option (drystone.access.v1.rule)";

#[test]
fn a_lawful_contract_is_read_whole() {
    let contract = read(
        "service StoneService { option (drystone.access.v1.permissions) = { name: \"stones:lay\" description: \"Lay.\" };
         rpc Lay(M) returns (M) { option idempotency_level = IDEMPOTENT; option (google.api.http) = { post: \"/v1/stones\" };
           option (drystone.access.v1.rule) = { callers: [\"outside\", \"stone\"] subject: SUBJECT_USER
             permission: \"stones:lay\" max_auth_age: { seconds: 300 } audited: true }; } }",
    )
    .unwrap();
    let method = &contract.methods[0];
    assert_eq!(method.path, "/drystone.stone.v1.StoneService/Lay");
    assert_eq!(method.callers, ["outside", "stone"]);
    assert_eq!(method.permission.as_deref(), Some("stones:lay"));
    assert_eq!(method.max_auth_age, Some(std::time::Duration::from_mins(5)));
    assert_eq!(
        (method.subject.as_str(), method.idempotency.as_str(), method.audited),
        ("SUBJECT_USER", "IDEMPOTENT", true)
    );
}

#[test]
fn an_rpc_without_a_rule_is_refused() {
    let finding = finding("");
    assert!(finding.starts_with("drystone.stone.v1.StoneService.Lay: has no access rule"), "{finding}");
}

#[test]
fn a_rule_without_callers_is_refused() {
    let finding = finding(&format!("{RULE} = {{ subject: SUBJECT_NONE }};"));
    assert_eq!(finding, "drystone.stone.v1.StoneService.Lay: its access rule names no callers");
}

#[test]
fn an_unknown_caller_is_refused() {
    let finding = finding(&format!("{RULE} = {{ callers: [\"edge\", \"sotne\"] subject: SUBJECT_NONE }};"));
    assert!(finding.contains("StoneService.Lay: names the unknown caller `sotne`; known are"), "{finding}");
    assert!(finding.contains("edge, ingress, operator, outside, stone"), "{finding}");
}

#[test]
fn a_rule_without_a_subject_is_refused() {
    let finding = finding(&format!("{RULE} = {{ callers: \"edge\" }};"));
    assert!(finding.contains("StoneService.Lay: its access rule does not state a subject"), "{finding}");
}

#[test]
fn an_unknown_permission_is_refused() {
    let finding =
        finding(&format!("{RULE} = {{ callers: \"edge\" subject: SUBJECT_USER permission: \"stones:eat\" }};"));
    assert!(
        finding.contains("StoneService.Lay: names the unknown permission `stones:eat`; declared are none"),
        "{finding}"
    );
}

#[test]
fn a_permission_without_a_user_is_refused() {
    let finding =
        finding(&format!("{RULE} = {{ callers: \"edge\" subject: SUBJECT_NONE max_auth_age: {{ seconds: 5 }} }};"));
    assert!(finding.contains("which only SUBJECT_USER can have"), "{finding}");
}

#[test]
fn a_rest_path_without_outside_is_refused() {
    let finding = finding(&format!(
        "option (google.api.http) = {{ get: \"/v1/stones\" }}; {RULE} = {{ callers: \"edge\" subject: SUBJECT_NONE }};"
    ));
    assert!(
        finding.contains("StoneService.Lay: has the REST path `GET /v1/stones` but does not list `outside`"),
        "{finding}"
    );
}

#[test]
fn an_additional_rest_path_counts_too() {
    let finding = finding(&format!(
        "option (google.api.http) = {{ custom: {{ kind: \"LAY\" path: \"/v1/x\" }} additional_bindings: {{ put: \"/v1/stones\" }} }};
         {RULE} = {{ callers: \"edge\" subject: SUBJECT_NONE }};"
    ));
    assert!(finding.contains("`PUT /v1/stones`"), "{finding}");
}

#[test]
fn two_rpcs_on_one_rest_path_are_refused() {
    let rpc = |name| {
        format!(
            "rpc {name}(M) returns (M) {{ option (google.api.http) = {{ get: \"/v1/stones\" }};
             {RULE} = {{ callers: \"outside\" subject: SUBJECT_NONE }}; }}"
        )
    };
    let refused = read(&format!("service StoneService {{ {} {} }}", rpc("Lay"), rpc("Lift"))).err().unwrap();
    assert!(refused.0[0].contains("StoneService.Lift: the REST path `GET /v1/stones` is taken"), "{refused}");
}

#[test]
fn a_stream_with_a_rest_path_is_refused() {
    let refused = read(&format!(
        "service StoneService {{ rpc Lay(M) returns (stream M) {{ option (google.api.http) = {{ get: \"/v1/stones\" }};
         {RULE} = {{ callers: \"outside\" subject: SUBJECT_NONE }}; }} }}"
    ));
    assert!(
        refused.err().unwrap().0[0].contains("StoneService.Lay: has the REST path `GET /v1/stones` but is a stream")
    );
}

#[test]
fn every_finding_is_told_at_once() {
    let refused = read(
        "service StoneService { rpc Lay(M) returns (M) {} rpc Lift(M) returns (M) { \
         option (drystone.access.v1.rule) = { callers: \"nobody\" permission: \"x:y\" }; } }",
    );
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("StoneService.Lay") && text.matches("StoneService.Lift").count() == 4, "{text}");
}

#[test]
fn a_file_that_does_not_compile_is_refused_by_protoc() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("broken.proto"), "syntax = \"proto3\"; message {").unwrap();
    let error = protoc::compile(folder.path(), &["broken.proto".into()], folder.path()).unwrap_err();
    assert!(error.to_string().contains("broken.proto:1"), "{error}");
}

#[test]
fn comments_of_others_are_left_out_and_nothing_else() {
    use prost_reflect::{DescriptorPool, prost::Message as _, prost_types::FileDescriptorSet};

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let scratch = tempfile::tempdir().unwrap();
    let whole = protoc::compile(&root, &protoc::files_under(&root).unwrap(), scratch.path()).unwrap();
    let kept = comments::only_of("drystone/", &whole).unwrap();
    assert!(kept.len() * 2 < whole.len(), "{} of {} bytes", kept.len(), whole.len());

    let (before, after) = (FileDescriptorSet::decode(&*whole).unwrap(), FileDescriptorSet::decode(&*kept).unwrap());
    for (before, mut after) in before.file.into_iter().zip(after.file) {
        let is_ours = after.name().starts_with("drystone/");
        assert_eq!(after.source_code_info.is_some(), is_ours, "{}", after.name());
        after.source_code_info.clone_from(&before.source_code_info);
        assert_eq!(before, after);
    }
    // Custom options stand.
    let pool = DescriptorPool::decode(&*kept).unwrap();
    let option = pool.get_extension_by_name("drystone.access.v1.rule").unwrap();
    let method = pool.get_service_by_name("drystone.user.v1.UserService").unwrap().methods().next().unwrap();
    assert!(method.options().has_extension(&option));
}
