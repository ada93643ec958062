//! A contract that leaves a question open does not build, and the refusal names the RPC and what is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{collections::BTreeSet, fs, time::Duration};

use drystone_build::Builder;
use drystone_contract::{Audit, Contract, Contracts, EncodedContract, Idempotency, Subject};

/// Compiles one file, as a contract of the service `stone` of another team.
fn read(source: &str) -> Result<Contract, String> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("proto");
    let file = root.join("acme/stone/v1/stone.proto");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let head = "syntax = \"proto3\"; package acme.stone.v1; \
                import \"drystone/access/v1/access.proto\"; import \"google/api/annotations.proto\"; \
                message M { string text = 1; M inner = 2; repeated string texts = 3; map<string, string> labels = 4; }\n";
    fs::write(&file, format!("{head}{source}")).unwrap();
    let compiled = Builder::new(&root).compile(folder.path()).map_err(|error| error.to_string())?;
    Ok(compiled.contract)
}

/// The findings about a service whose single RPC `Lay` has these options, beside an idempotency level.
fn findings(options: &str) -> String {
    read(&service(&format!("option idempotency_level = NO_SIDE_EFFECTS; {options}")))
        .expect_err("the contract was accepted")
}

/// The one finding about such a service.
fn finding(options: &str) -> String {
    let findings = findings(options);
    let lines: Vec<&str> = findings.lines().skip(1).map(str::trim).collect();
    assert_eq!(lines.len(), 1, "{findings}");
    lines[0].to_owned()
}

fn service(options: &str) -> String {
    format!("service StoneService {{ {WORKLOAD} rpc Lay(M) returns (M) {{ {options} }} }}")
}

const WORKLOAD: &str = "option (drystone.access.v1.workload) = \"stone\";";
const RULE: &str = "option (drystone.access.v1.rule)";

#[test]
fn a_valid_contract_is_read_whole() {
    let contract = read(&format!(
        "service StoneService {{ {WORKLOAD}
         option (drystone.access.v1.permissions) = {{ name: \"stones:lay\" description: \"Lay.\" }};
         option (drystone.access.v1.clients) = \"quarry-job\";
         rpc Lay(M) returns (M) {{ option idempotency_level = IDEMPOTENT; option (google.api.http) = {{ post: \"/v1/stones\" }};
           option (drystone.access.v1.policy) = {{ deadline: {{ default: {{ seconds: 1 }} max: {{ seconds: 2 }} }} limit: \"stones\" }};
           {RULE} = {{ callers: [\"outside\", \"stone\", \"quarry-job\", \"auth\", \"any\"] subject: SUBJECT_USER
             permission: \"stones:lay\" max_auth_age: {{ seconds: 300 }} audit: AUDIT_TRAIL }}; }} }}"
    ))
    .unwrap();
    let method = &contract.methods()[0];
    assert_eq!((&*method.path, &*method.workload), ("/acme.stone.v1.StoneService/Lay", "stone"));
    assert_eq!(method.callers, ["outside", "stone", "quarry-job", "auth", "any"]);
    assert_eq!(method.permission.as_deref(), Some("stones:lay"));
    assert_eq!(method.max_auth_age, Some(Duration::from_mins(5)));
    assert_eq!((method.subject, method.idempotency), (Subject::User, Idempotency::Idempotent));
    assert_eq!(method.audit, Some(Audit::Trail));
    assert_eq!(method.policy.deadline.default, Some(Duration::from_secs(1)));
    assert_eq!(method.policy.deadline.max, Some(Duration::from_secs(2)));
    assert_eq!(method.policy.limit.as_deref(), Some("stones"));
    assert_eq!(method.rest[0].to_string(), "POST /v1/stones");
}

#[test]
fn each_fault_of_a_rule_names_the_rpc_and_what_to_do() {
    for (options, expected) in [
        ("", "has no access rule: add `option (drystone.access.v1.rule)`"),
        ("option (drystone.access.v1.rule) = { subject: SUBJECT_NONE };", "its access rule names no callers"),
        ("option (drystone.access.v1.rule) = { callers: \"edge\" };", "does not state a subject"),
        (
            "option (drystone.access.v1.rule) = { callers: \"edge\" subject: SUBJECT_NONE max_auth_age: { seconds: 5 } };",
            "which only SUBJECT_USER can have",
        ),
        (
            "option (drystone.access.v1.rule) = { callers: \"edge\" subject: SUBJECT_USER max_auth_age: { seconds: -5 } };",
            "has a `max_auth_age` that is no positive duration",
        ),
    ] {
        let finding = finding(options);
        assert!(finding.starts_with("acme.stone.v1.StoneService.Lay: ") && finding.contains(expected), "{finding}");
    }
}

#[test]
fn rules_name_only_what_there_is() {
    let caller = finding(&format!("{RULE} = {{ callers: [\"edge\", \"sotne\"] subject: SUBJECT_NONE }};"));
    assert!(caller.contains("acme.stone.v1.StoneService/Lay: names the unknown caller `sotne`; known are"), "{caller}");
    let ours = drystone_platform();
    let words = ["any", "edge", "ingress", "operator", "outside", "stone"].into_iter();
    let known: BTreeSet<_> = words.chain(ours.workloads().iter().map(String::as_str)).collect();
    let known: Vec<_> = known.into_iter().collect();
    assert!(caller.ends_with(&format!("known are {}", known.join(", "))), "{caller}");
    let permission =
        finding(&format!("{RULE} = {{ callers: \"edge\" subject: SUBJECT_USER permission: \"stones:eat\" }};"));
    assert!(permission.contains("names the unknown permission `stones:eat`; declared are users:read"), "{permission}");
}

#[test]
fn a_service_says_which_workload_serves_it() {
    let rule =
        format!("option idempotency_level = IDEMPOTENT; {RULE} = {{ callers: \"edge\" subject: SUBJECT_NONE }};");
    let error =
        |option: &str| read(&format!("service S {{ {option} rpc Lay(M) returns (M) {{ {rule} }} }}")).unwrap_err();
    assert!(error("").contains("acme.stone.v1.S: does not say which workload serves it"));
    for name in ["edge", "outside", "any", "operator", "Stone", "a/b", ""] {
        let found = error(&format!("option (drystone.access.v1.workload) = \"{name}\";"));
        assert!(found.contains("workload"), "{name}: {found}");
    }
    let taken = error("option (drystone.access.v1.workload) = \"user\";");
    assert!(taken.contains("the workload `user` is in drystone and in"), "{taken}");
}

#[test]
fn an_idempotency_level_is_stated() {
    let rule = format!("{RULE} = {{ callers: \"edge\" subject: SUBJECT_NONE }};");
    let error = read(&service(&rule)).unwrap_err();
    assert!(error.contains("does not say whether it may be sent again"), "{error}");
    assert!(read(&service(&format!("option idempotency_level = IDEMPOTENCY_UNKNOWN; {rule}"))).is_ok());
}

const OPEN: &str = "option (drystone.access.v1.rule) = { callers: \"outside\" subject: SUBJECT_NONE };";

#[test]
fn a_rest_path_fits_its_rpc() {
    for (http, expected) in [
        ("get: \"v1/x\"", "does not begin with `/`"),
        ("get: \"/v1/{text\"", "does not close"),
        ("get: \"/v1/{nope}\"", "fills the field `nope` from the path, which is not there"),
        ("get: \"/v1/{inner}\"", "no single value"),
        ("get: \"/v1/{texts}\"", "no single value"),
        ("get: \"/v1/{labels}\"", "no single value"),
        ("post: \"/v1/x\" body: \"nope\"", "its body into the unknown field `nope`"),
        ("get: \"/v1/x\" response_body: \"text\"", "uses `response_body`"),
        ("get: \"/v1/x\" body: \"*\"", "has a body on a GET"),
        ("body: \"*\"", "without method and path"),
        ("custom: {kind: \"BAD KIND\" path: \"/v1/x\"}", "HTTP does not have"),
        ("get: \"/v1/{text}\" additional_bindings {get: \"/v1/{inner.text}\"}", "match the same requests"),
        ("get: \"/v1/{text}/x\" additional_bindings {get: \"/v1/y/{text}\"}", "match the same requests"),
    ] {
        let findings = findings(&format!("option (google.api.http) = {{{http}}}; {OPEN}"));
        assert!(
            findings.contains("acme.stone.v1.StoneService.Lay: ") && findings.contains(expected),
            "{http}: {findings}"
        );
    }
    for http in ["get: \"/v1/{inner.inner.text}\"", "get: \"/v1/{text}\" additional_bindings {get: \"/v1/me\"}"] {
        let options =
            format!("option idempotency_level = NO_SIDE_EFFECTS; option (google.api.http) = {{{http}}}; {OPEN}");
        read(&service(&options)).unwrap_or_else(|error| panic!("{http}: {error}"));
    }
}

#[test]
fn what_is_reached_from_outside_says_so() {
    let get = "option (google.api.http) = { get: \"/v1/stones\" };";
    let closed = finding(&format!("{get} {RULE} = {{ callers: \"edge\" subject: SUBJECT_NONE }};"));
    assert!(closed.contains("has the REST path `GET /v1/stones` but does not list `outside`"), "{closed}");
    let changing = read(&service(&format!("option idempotency_level = IDEMPOTENT; {get} {OPEN}"))).unwrap_err();
    assert!(changing.contains("only what has NO_SIDE_EFFECTS can be a GET"), "{changing}");
    let stream = read(&format!(
        "service S {{ {WORKLOAD} rpc Lay(M) returns (stream M) {{ option idempotency_level = NO_SIDE_EFFECTS; {get} {OPEN} }} }}"
    ));
    assert!(stream.unwrap_err().contains("is a stream, which is not carried over REST"));
    let ours = finding(&format!("option (google.api.http) = {{ get: \"/v1/users/{{text}}\" }}; {OPEN}"));
    assert!(ours.contains("matches requests of") && ours.contains("drystone.user.v1.UserService/GetUser"), "{ours}");
}

#[test]
fn a_policy_fits_its_rpc() {
    let policy = |policy: &str| findings(&format!("option (drystone.access.v1.policy) = {{{policy}}}; {OPEN}"));
    assert!(policy("deadline: {default: {seconds: 3} max: {seconds: 2}}").contains("longer than its maximum"));
    assert!(policy("deadline: {default: {seconds: 0}}").contains("`deadline.default` that is no positive duration"));
    assert!(policy("limit: \"Sign In\"").contains("names the limit `Sign In`"));
    let user = format!("{RULE} = {{ callers: \"outside\" subject: SUBJECT_USER }};");
    let kept = findings(&format!("option (drystone.access.v1.policy) = {{cache_max_age: {{seconds: 1}}}}; {user}"));
    assert!(kept.contains("lets anybody keep its answer"), "{kept}");
}

#[test]
fn every_finding_is_told_at_once() {
    let error = read(&format!(
        "service StoneService {{ {WORKLOAD} rpc Lay(M) returns (M) {{}} rpc Lift(M) returns (M) {{ \
         option (drystone.access.v1.rule) = {{ permission: \"x:y\" }}; }} }}"
    ))
    .unwrap_err();
    assert!(error.contains("StoneService.Lay") && error.matches("StoneService.Lift").count() == 4, "{error}");
}

#[test]
fn a_file_that_does_not_compile_is_refused_by_protoc() {
    let error = read("message {").unwrap_err();
    assert!(error.contains("protoc refuses the contract") && error.contains("stone.proto:2"), "{error}");
}

#[test]
fn contracts_that_clash_are_refused_by_both_names() {
    let rpc = format!(
        "option idempotency_level = NO_SIDE_EFFECTS; option (google.api.http) = {{ get: \"/v1/stones\" }}; {OPEN}"
    );
    let permission = "option (drystone.access.v1.permissions) = { name: \"stones:lay\" description: \"Lay.\" };";
    let source = format!("service StoneService {{ {WORKLOAD} {permission} rpc Lay(M) returns (M) {{ {rpc} }} }}");
    let one = read(&source).unwrap();
    let named = |name: &str| EncodedContract::from_bytes(name, one.descriptor_set());
    let error = Contracts::load([named("one.binpb"), named("two.binpb")]).unwrap_err().to_string();
    for kind in ["service `acme.stone.v1.StoneService`", "workload `stone`", "permission `stones:lay`"] {
        assert!(error.contains(&format!("the {kind} is in one.binpb and in two.binpb")), "{error}");
    }
    let other = source
        .replace("StoneService", "RockService")
        .replace("\"stone\"", "\"rock\"")
        .replace("stones:lay", "rocks:lay");
    let other = EncodedContract::from_bytes("rock.binpb", read(&other).unwrap().descriptor_set());
    let error = Contracts::load([named("stone.binpb"), other]).unwrap_err().to_string();
    assert!(
        error.contains("acme.stone.v1.RockService/Lay: the REST path `GET /v1/stones` matches requests of"),
        "{error}"
    );
    assert!(error.contains("acme.stone.v1.StoneService/Lay"), "{error}");
}

#[test]
fn a_file_that_is_no_contract_is_refused_by_its_name() {
    let load = |bytes: &[u8]| Contracts::load([EncodedContract::from_bytes("x.binpb", bytes)]).unwrap_err().to_string();
    assert!(load(b"\xff\xff").contains("x.binpb") && load(b"\xff\xff").contains("is no descriptor set"));
    assert!(load(b"").contains("offers no service"));
}

#[test]
fn a_contract_of_another_team_offers_nothing_in_our_packages() {
    let contract = drystone_platform();
    let copy = EncodedContract::from_bytes("copy.binpb", contract.descriptor_set());
    assert!(Contracts::load([copy]).unwrap_err().to_string().contains("offers no service"));
}

#[test]
fn comments_of_other_projects_are_left_out_and_nothing_else() {
    let contract = drystone_platform();
    for file in contract.pool().files() {
        let proto = file.file_descriptor_proto();
        let is_own = file.name().starts_with("drystone/");
        assert_eq!(proto.source_code_info.is_some(), is_own, "{}", file.name());
    }
    let pool = contract.pool();
    let option = pool.get_extension_by_name("drystone.access.v1.rule").unwrap();
    let method = pool.get_service_by_name("drystone.user.v1.UserService").unwrap().methods().next().unwrap();
    assert!(method.options().has_extension(&option));
    assert!(pool.get_message_by_name("google.rpc.ErrorInfo").is_some(), "other transcoders need the details of errors");
}

fn drystone_platform() -> Contract {
    let scratch = tempfile::tempdir().unwrap();
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");
    Builder::new(proto).platform().compile(scratch.path()).unwrap().contract
}
