//! Validation of contracts: each error names the RPC and what to do.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use drystone_build::Builder;
use drystone_contract::{Audit, Contract, Contracts, EncodedContract, Factors, Idempotency, Subject};

const HEAD: &str = "syntax = \"proto3\"; package acme.stone.v1; \
    import \"drystone/access/v1/access.proto\"; import \"google/api/annotations.proto\"; \
    message M { string text = 1; M inner = 2; repeated string texts = 3; map<string, string> labels = 4; }\n";

/// Compiles one file as a contract of the third-party service `stone`.
fn compile(source: &str) -> Result<Contract, String> {
    compile_files(&[("acme/stone/v1/stone.proto", &format!("{HEAD}{source}"))])
}

/// Compiles these files as one contract.
fn compile_files(files: &[(&str, &str)]) -> Result<Contract, String> {
    let folder = tempfile::tempdir().unwrap();
    let root = write(folder.path(), files);
    let compiled = Builder::new(&root).compile(folder.path()).map_err(|error| error.to_string())?;
    Ok(compiled.contract)
}

fn write(folder: &Path, files: &[(&str, &str)]) -> PathBuf {
    let root = folder.join("proto");
    for (name, source) in files {
        let file = root.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, source).unwrap();
    }
    root
}

/// The descriptor set of one file from protoc, without validation.
fn unvalidated(source: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = write(folder.path(), &[("stone.proto", &format!("{HEAD}{source}"))]);
    let output = folder.path().join("stone.binpb");
    let status = Command::new(protoc_bin_vendored::protoc_bin_path().unwrap())
        .arg("--include_imports")
        .arg(format!("--descriptor_set_out={}", output.display()))
        .args(
            [&root, Path::new(PLATFORM), &protoc_bin_vendored::include_path().unwrap()]
                .map(|root: &Path| format!("--proto_path={}", root.display())),
        )
        .arg("stone.proto")
        .status()
        .unwrap();
    assert!(status.success());
    fs::read(output).unwrap()
}

const PLATFORM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");

/// The findings for a service with one RPC `Lay` with these options and an idempotency level.
fn findings(options: &str) -> String {
    compile(&service(&format!("option idempotency_level = NO_SIDE_EFFECTS; {options}")))
        .expect_err("the contract is valid")
}

/// The only finding for such a service.
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
fn a_valid_contract_is_decoded_completely() {
    let contract = compile(&format!(
        "service StoneService {{ {WORKLOAD}
         option (drystone.access.v1.permissions) = {{ name: \"stones:lay\" description: \"Lay.\" }};
         option (drystone.access.v1.clients) = \"quarry-job\";
         rpc Lay(M) returns (M) {{ option idempotency_level = IDEMPOTENT; option (google.api.http) = {{ post: \"/v1/stones\" }};
           option (drystone.access.v1.policy) = {{ deadline: {{ default: {{ seconds: 1 }} max: {{ seconds: 2 }} }} limit: \"stones\" }};
           {RULE} = {{ callers: [\"outside\", \"stone\", \"quarry-job\", \"auth\", \"any\"] subject: SUBJECT_USER
             permission: \"stones:lay\" factors: FACTORS_TWO max_auth_age: {{ seconds: 300 }} audit: AUDIT_TRAIL }}; }} }}"
    ))
    .unwrap();
    let method = &contract.methods()[0];
    assert_eq!((&*method.path, &*method.workload), ("/acme.stone.v1.StoneService/Lay", "stone"));
    assert_eq!(method.callers, ["outside", "stone", "quarry-job", "auth", "any"]);
    assert_eq!(method.permission.as_deref(), Some("stones:lay"));
    assert_eq!((method.factors, method.max_auth_age), (Some(Factors::Two), Some(Duration::from_mins(5))));
    assert_eq!((method.subject, method.idempotency), (Subject::User, Idempotency::Idempotent));
    assert_eq!(method.audit, Some(Audit::Trail));
    assert_eq!(method.policy.deadline.default, Some(Duration::from_secs(1)));
    assert_eq!(method.policy.deadline.max, Some(Duration::from_secs(2)));
    assert_eq!(method.policy.limit.as_deref(), Some("stones"));
    assert_eq!(method.rest[0].to_string(), "POST /v1/stones");
}

#[test]
fn each_error_in_a_rule_names_the_rpc_and_what_to_do() {
    for (options, expected) in [
        ("", "has no access rule: add `option (drystone.access.v1.rule)`"),
        ("option (drystone.access.v1.rule) = { subject: SUBJECT_NONE };", "its access rule has no callers"),
        ("option (drystone.access.v1.rule) = { callers: \"edge\" };", "has no subject"),
        (
            "option (drystone.access.v1.rule) = { callers: \"edge\" subject: SUBJECT_NONE max_auth_age: { seconds: 5 } };",
            "which needs SUBJECT_USER",
        ),
        (
            "option (drystone.access.v1.rule) = { callers: \"edge\" subject: SUBJECT_USER max_auth_age: { seconds: -5 } };",
            "has a `max_auth_age` that is not a positive duration",
        ),
        (
            "option (drystone.access.v1.rule) = { callers: \"edge\" subject: SUBJECT_NONE factors: FACTORS_TWO };",
            "which needs SUBJECT_USER",
        ),
        (
            "option (drystone.access.v1.rule) = { callers: \"edge\" subject: SUBJECT_USER factors: 9 };",
            "requires unknown `factors`: use FACTORS_TWO or FACTORS_PHISHING_RESISTANT",
        ),
        (
            "option (drystone.access.v1.rule) = { callers: \"edge\" subject: SUBJECT_USER_OR_OPERATOR };",
            "has SUBJECT_USER_OR_OPERATOR but does not list `operator` among its callers",
        ),
    ] {
        let finding = finding(options);
        assert!(finding.starts_with("acme.stone.v1.StoneService.Lay: ") && finding.contains(expected), "{finding}");
    }
}

#[test]
fn unknown_callers_and_permissions_are_rejected() {
    let caller = finding(&format!("{RULE} = {{ callers: [\"edge\", \"sotne\"] subject: SUBJECT_NONE }};"));
    assert!(caller.contains("acme.stone.v1.StoneService/Lay: names the unknown caller `sotne`; known are"), "{caller}");
    let platform = drystone_platform();
    let special_names = ["any", "edge", "ingress", "operator", "outside", "stone"].into_iter();
    let known: BTreeSet<_> = special_names.chain(platform.workloads().iter().map(String::as_str)).collect();
    let known: Vec<_> = known.into_iter().collect();
    assert!(caller.ends_with(&format!("known are {}", known.join(", "))), "{caller}");
    let permission =
        finding(&format!("{RULE} = {{ callers: \"edge\" subject: SUBJECT_USER permission: \"stones:eat\" }};"));
    assert!(
        permission
            .contains("names the unknown permission `stones:eat`; declared are factors:reset, notifications:read"),
        "{permission}"
    );
}

#[test]
fn a_service_requires_a_workload() {
    let rule =
        format!("option idempotency_level = IDEMPOTENT; {RULE} = {{ callers: \"edge\" subject: SUBJECT_NONE }};");
    let error =
        |option: &str| compile(&format!("service S {{ {option} rpc Lay(M) returns (M) {{ {rule} }} }}")).unwrap_err();
    assert!(error("").contains("acme.stone.v1.S: has no workload"));
    for name in ["edge", "outside", "any", "operator", "Stone", "a/b", ""] {
        let found = error(&format!("option (drystone.access.v1.workload) = \"{name}\";"));
        assert!(found.contains("workload"), "{name}: {found}");
    }
    let taken = error("option (drystone.access.v1.workload) = \"user\";");
    assert!(taken.contains("the workload `user` is in drystone and in"), "{taken}");
}

#[test]
fn a_permission_name_is_a_resource_and_an_action_in_lower_case() {
    let declared = |name: &str| {
        let option = format!("option (drystone.access.v1.permissions) = {{ name: \"{name}\" description: \"Lay.\" }};");
        let rpc =
            format!("option idempotency_level = IDEMPOTENT; {RULE} = {{ callers: \"edge\" subject: SUBJECT_NONE }};");
        compile(&format!("service S {{ {WORKLOAD} {option} rpc Lay(M) returns (M) {{ {rpc} }} }}"))
    };
    for name in
        ["", "stones", "stones:", ":lay", "Stones:lay", "stones:Lay", "stones:lay:all", "stones lay", "stones:l y"]
    {
        let error = declared(name).unwrap_err();
        let expected = format!("acme.stone.v1.S: declares the permission `{name}`; a permission is RESOURCE:ACTION");
        assert!(error.contains(&expected), "{name}: {error}");
    }
    for name in ["stones:lay", "dry-stones:lay_2"] {
        declared(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_redacted_field_inside_a_oneof_is_rejected() {
    let rpc = service(&format!("option idempotency_level = IDEMPOTENT; {OPEN}"));
    let hidden =
        format!("message Key {{ message Part {{ oneof kind {{ string pin = 1 [debug_redact = true]; }} }} }} {rpc}");
    let expected = "acme.stone.v1.Key.Part.pin: is marked debug_redact inside a oneof";
    let built = compile(&hidden).unwrap_err();
    assert!(built.contains(expected), "{built}");
    let file = EncodedContract::from_bytes("stone.binpb", unvalidated(&hidden));
    let loaded = Contracts::load([file]).unwrap_err().to_string();
    assert!(loaded.contains("stone.binpb") && loaded.contains(expected), "{loaded}");

    let valid = format!(
        "message Key {{ optional string pin = 1 [debug_redact = true]; oneof kind {{ string name = 2; }} }} {rpc}"
    );
    compile(&valid).unwrap();
    Contracts::load([EncodedContract::from_bytes("stone.binpb", unvalidated(&valid))]).unwrap();
}

#[test]
fn an_idempotency_level_is_required() {
    let rule = format!("{RULE} = {{ callers: \"edge\" subject: SUBJECT_NONE }};");
    let error = compile(&service(&rule)).unwrap_err();
    assert!(error.contains("does not state whether it can be retried"), "{error}");
    assert!(compile(&service(&format!("option idempotency_level = IDEMPOTENCY_UNKNOWN; {rule}"))).is_ok());
}

const OPEN: &str = "option (drystone.access.v1.rule) = { callers: \"outside\" subject: SUBJECT_NONE };";

#[test]
fn rest_bindings_are_validated() {
    for (http, expected) in [
        ("get: \"v1/x\"", "does not start with `/`"),
        ("get: \"/v1/{text\"", "not closed"),
        ("get: \"/v1/{nope}\"", "has the path variable `nope`, which is not a field of the request"),
        ("get: \"/v1/{inner}\"", "not a single value"),
        ("get: \"/v1/{texts}\"", "not a single value"),
        ("get: \"/v1/{labels}\"", "not a single value"),
        ("post: \"/v1/x\" body: \"nope\"", "its body to the unknown field `nope`"),
        ("get: \"/v1/x\" response_body: \"text\"", "uses `response_body`"),
        ("get: \"/v1/x\" body: \"*\"", "has a body on a GET"),
        ("body: \"*\"", "without method and path"),
        (
            "custom: {kind: \"BAD KIND\" path: \"/v1/x\"}",
            "names the method `BAD KIND`; a custom method has only the letters A-Z",
        ),
        ("custom: {kind: \"report\" path: \"/v1/x\"}", "names the method `report`"),
        ("custom: {kind: \"M-SEARCH\" path: \"/v1/x\"}", "names the method `M-SEARCH`"),
        ("custom: {kind: \"*\" path: \"/v1/x\"}", "names the method `*`"),
        ("custom: {kind: \"\" path: \"/v1/x\"}", "names the method ``"),
        ("custom: {kind: \"CONNECT\" path: \"/v1/x\"}", "is not one of CONNECT, OPTIONS, TRACE"),
        ("custom: {kind: \"OPTIONS\" path: \"/v1/x\"}", "is not one of CONNECT, OPTIONS, TRACE"),
        ("custom: {kind: \"TRACE\" path: \"/v1/x\"}", "is not one of CONNECT, OPTIONS, TRACE"),
        ("custom: {kind: \"HEAD\" path: \"/v1/x\"} body: \"*\"", "has a body on a HEAD"),
        ("get: \"/health\"", "`GET /health`, which matches `/health`, reserved for the health of the edge"),
        ("post: \"/health\"", "reserved for the health of the edge"),
        ("get: \"/{text}\"", "reserved for the health of the edge"),
        ("get: \"/{text=**}\"", "reserved for the health of the edge"),
        ("get: \"/health/**\"", "reserved for the health of the edge"),
        ("get: \"/v1/{text}\" additional_bindings {get: \"/v1/{inner.text}\"}", "match the same requests"),
        ("get: \"/v1/{text}/x\" additional_bindings {get: \"/v1/y/{text}\"}", "match the same requests"),
    ] {
        let findings = findings(&format!("option (google.api.http) = {{{http}}}; {OPEN}"));
        assert!(
            findings.contains("acme.stone.v1.StoneService.Lay: ") && findings.contains(expected),
            "{http}: {findings}"
        );
    }
    for http in [
        "get: \"/v1/stones/{inner.inner.text}\"",
        "get: \"/v1/stones/{text}\" additional_bindings {get: \"/v1/stones/me\"}",
        "custom: {kind: \"REPORT\" path: \"/v1/x\"}",
        "custom: {kind: \"HEAD\" path: \"/v1/x\"}",
        "get: \"/health/{text}\"",
        "get: \"/v1/health\"",
    ] {
        let options =
            format!("option idempotency_level = NO_SIDE_EFFECTS; option (google.api.http) = {{{http}}}; {OPEN}");
        compile(&service(&options)).unwrap_or_else(|error| panic!("{http}: {error}"));
    }
}

#[test]
fn a_rest_path_requires_the_caller_outside_and_no_side_effects_for_reads() {
    let get = "option (google.api.http) = { get: \"/v1/stones\" };";
    let closed = finding(&format!("{get} {RULE} = {{ callers: \"edge\" subject: SUBJECT_NONE }};"));
    assert!(closed.contains("has the REST path `GET /v1/stones` but does not list `outside`"), "{closed}");
    let changing = compile(&service(&format!("option idempotency_level = IDEMPOTENT; {get} {OPEN}"))).unwrap_err();
    assert!(changing.contains("a GET needs NO_SIDE_EFFECTS"), "{changing}");
    let head = "option (google.api.http) = { custom: {kind: \"HEAD\" path: \"/v1/stones\"} };";
    let changing = compile(&service(&format!("option idempotency_level = IDEMPOTENT; {head} {OPEN}"))).unwrap_err();
    assert!(changing.contains("a HEAD needs NO_SIDE_EFFECTS"), "{changing}");
    let stream = compile(&format!(
        "service S {{ {WORKLOAD} rpc Lay(M) returns (stream M) {{ option idempotency_level = NO_SIDE_EFFECTS; {get} {OPEN} }} }}"
    ));
    assert!(stream.unwrap_err().contains("is streaming, which REST does not support"));
    let overlap = findings(&format!("option (google.api.http) = {{ get: \"/v1/users/{{text}}\" }}; {OPEN}"));
    assert!(overlap.contains(" overlaps ") && overlap.contains("drystone.user.v1.UserService/GetUser"), "{overlap}");
}

#[test]
fn policies_are_validated() {
    let policy = |policy: &str| findings(&format!("option (drystone.access.v1.policy) = {{{policy}}}; {OPEN}"));
    assert!(policy("deadline: {default: {seconds: 3} max: {seconds: 2}}").contains("longer than its maximum"));
    assert!(policy("deadline: {default: {seconds: 0}}").contains("`deadline.default` that is not a positive duration"));
    assert!(policy("limit: \"Sign In\"").contains("names the limit `Sign In`"));
    let user = format!("{RULE} = {{ callers: \"outside\" subject: SUBJECT_USER }};");
    let kept = findings(&format!("option (drystone.access.v1.policy) = {{cache_max_age: {{seconds: 1}}}}; {user}"));
    assert!(kept.contains("has a `cache_max_age`, which needs SUBJECT_NONE"), "{kept}");
}

#[test]
fn all_findings_are_reported_together() {
    let error = compile(&format!(
        "service StoneService {{ {WORKLOAD} rpc Lay(M) returns (M) {{}} rpc Lift(M) returns (M) {{ \
         option (drystone.access.v1.rule) = {{ permission: \"x:y\" }}; }} }}"
    ))
    .unwrap_err();
    assert!(error.contains("StoneService.Lay") && error.matches("StoneService.Lift").count() == 4, "{error}");
}

#[test]
fn a_file_that_does_not_compile_is_rejected_by_protoc() {
    let error = compile("message {").unwrap_err();
    assert!(error.contains("protoc rejected the contract") && error.contains("stone.proto:2"), "{error}");
}

#[test]
fn a_conflict_names_both_contracts() {
    let rpc = format!(
        "option idempotency_level = NO_SIDE_EFFECTS; option (google.api.http) = {{ get: \"/v1/stones\" }}; {OPEN}"
    );
    let permission = "option (drystone.access.v1.permissions) = { name: \"stones:lay\" description: \"Lay.\" };";
    let source = format!("service StoneService {{ {WORKLOAD} {permission} rpc Lay(M) returns (M) {{ {rpc} }} }}");
    let one = compile(&source).unwrap();
    let named = |name: &str| EncodedContract::from_bytes(name, one.descriptor_set());
    let error = Contracts::load([named("one.binpb"), named("two.binpb")]).unwrap_err().to_string();
    for kind in ["service `acme.stone.v1.StoneService`", "workload `stone`", "permission `stones:lay`"] {
        assert!(error.contains(&format!("the {kind} is in one.binpb and in two.binpb")), "{error}");
    }
    let other = source
        .replace("StoneService", "RockService")
        .replace("\"stone\"", "\"rock\"")
        .replace("stones:lay", "rocks:lay");
    let other = EncodedContract::from_bytes("rock.binpb", compile(&other).unwrap().descriptor_set());
    let error = Contracts::load([named("stone.binpb"), other]).unwrap_err().to_string();
    assert!(
        error.contains(
            "acme.stone.v1.RockService/Lay: the REST path `GET /v1/stones` of rock.binpb overlaps \
             `GET /v1/stones`, which is acme.stone.v1.StoneService/Lay of stone.binpb"
        ),
        "{error}"
    );
}

/// A contract with one RPC for each of these bindings, and unique names.
fn bound(name: &str, bindings: &[&str]) -> EncodedContract {
    let rpcs: Vec<String> = bindings
        .iter()
        .enumerate()
        .map(|(number, http)| {
            format!(
                "rpc Do{number}(M) returns (M) {{ option idempotency_level = NO_SIDE_EFFECTS; \
                 option (google.api.http) = {{{http}}}; {OPEN} }} "
            )
        })
        .collect();
    let source =
        format!("service {name}Service {{ option (drystone.access.v1.workload) = \"{name}\"; {} }}", rpcs.concat());
    EncodedContract::from_bytes(format!("{name}.binpb"), unvalidated(&source))
}

#[test]
fn overlapping_rest_paths_of_two_contracts_are_rejected() {
    for (one, other) in [
        ("get: \"/v1/rocks/{text}\"", "get: \"/v1/rocks/admins\""),
        ("get: \"/v1/rocks/{text}\"", "get: \"/v1/rocks/**\""),
        ("get: \"/v1/rocks/{text}\"", "get: \"/v1/rocks/{inner.text}\""),
        ("get: \"/v1/rocks/{text}\"", "custom: {kind: \"HEAD\" path: \"/v1/rocks/{text}\"}"),
        ("get: \"/v1/rocks/{text}\"", "post: \"/v1/rocks/{text}:block\""),
        ("delete: \"/v1/rocks/{text}\"", "get: \"/v1/rocks/me:block\""),
        ("post: \"/v1/rocks/{text}:block\"", "post: \"/v1/rocks/me:block\""),
    ] {
        for (first, second) in [(one, other), (other, one)] {
            let error = Contracts::load([bound("one", &[first]), bound("two", &[second])]).unwrap_err();
            let [finding] = &error.findings[..] else { panic!("{first} {second}: {error}") };
            let (own, other) = finding.split_once(" overlaps ").unwrap();
            assert!(own.starts_with("acme.stone.v1.twoService/Do0: the REST path `"), "{finding}");
            assert!(own.ends_with("` of two.binpb") && own.contains("/v1/rocks/"), "{finding}");
            assert!(
                other.contains("/v1/rocks/") && other.contains("acme.stone.v1.oneService/Do0 of one.binpb"),
                "{finding}"
            );
        }
    }
}

#[test]
fn disjoint_rest_paths_of_two_contracts_are_allowed() {
    for (one, other) in [
        ("get: \"/v1/rocks/{text}\"", "get: \"/v1/rocks\""),
        ("get: \"/v1/rocks/{text}\"", "get: \"/v1/rocks/{text}/parts\""),
        ("get: \"/v1/rocks/{text}\"", "delete: \"/v1/rocks/{text}\""),
        ("get: \"/v1/rocks/{text}\"", "post: \"/v1/rocks:import\""),
        ("post: \"/v1/rocks/{text}:block\"", "post: \"/v1/rocks/{text}:lift\""),
    ] {
        Contracts::load([bound("one", &[one]), bound("two", &[other])])
            .unwrap_or_else(|error| panic!("{one} {other}: {error}"));
    }
}

#[test]
fn the_more_specific_rest_path_of_a_contract_is_allowed() {
    let get = "get: \"/v1/rocks/{text}\"";
    let specific = ["get: \"/v1/rocks/admins\"", "get: \"/v1/rocks/**\"", "post: \"/v1/rocks/{text}:block\""];
    Contracts::load([bound("one", &[&[get], &specific[..]].concat())]).unwrap();
    let error = Contracts::load([bound("one", &[get, "get: \"/v1/rocks/{inner.text}\""])]).unwrap_err();
    assert!(error.to_string().contains("matches requests of"), "{error}");
}

/// A contract of the service `name` with a file `common/v1/common.proto` where `Size` has this field.
fn sized(name: &str, field: &str) -> EncodedContract {
    let common = format!("syntax = \"proto3\"; package common.v1; message Size {{ {field} = 1; }}");
    let service = format!(
        "syntax = \"proto3\"; package acme.{name}.v1; \
         import \"drystone/access/v1/access.proto\"; import \"common/v1/common.proto\"; \
         service SizeService {{ option (drystone.access.v1.workload) = \"{name}\"; \
         rpc Measure(common.v1.Size) returns (common.v1.Size) {{ option idempotency_level = IDEMPOTENT; \
         {RULE} = {{ callers: \"any\" subject: SUBJECT_NONE }}; }} }}"
    );
    let files = [("common/v1/common.proto", &*common), (&*format!("acme/{name}/v1/{name}.proto"), &*service)];
    let contract = compile_files(&files).unwrap();
    EncodedContract::from_bytes(format!("{name}.binpb"), contract.descriptor_set())
}

#[test]
fn contracts_can_have_different_files_of_the_same_name() {
    let contracts = Contracts::load([sized("rock", "int64 grams"), sized("stone", "string text")]).unwrap();
    for (number, (name, field)) in [("rock", "grams"), ("stone", "text")].into_iter().enumerate() {
        let path = format!("/acme.{name}.v1.SizeService/Measure");
        assert_eq!(&*contracts.method(&path).unwrap().workload, name);
        let service = contracts.contracts()[number].pool().get_service_by_name(&path[1..path.len() - "/Measure".len()]);
        let input = service.unwrap().methods().next().unwrap().input();
        let fields: Vec<_> = input.fields().map(|field| field.name().to_owned()).collect();
        assert_eq!(fields, [field]);
    }
    let error = contracts.descriptor_set().unwrap_err().to_string();
    assert!(
        error.contains("the contract stone.binpb is invalid")
            && error
                .contains("its file common/v1/common.proto differs from that of rock.binpb; export each from its own"),
        "{error}"
    );
    let same = Contracts::load([sized("rock", "int64 grams"), sized("stone", "int64 grams")]).unwrap();
    same.descriptor_set().unwrap();
}

#[test]
fn an_invalid_contract_file_is_rejected_by_name() {
    let load = |bytes: &[u8]| Contracts::load([EncodedContract::from_bytes("x.binpb", bytes)]).unwrap_err().to_string();
    assert!(load(b"\xff\xff").contains("x.binpb") && load(b"\xff\xff").contains("is not a descriptor set"));
    assert!(load(b"").contains("offers no service"));
}

#[test]
fn a_third_party_contract_cannot_offer_services_in_platform_packages() {
    let contract = drystone_platform();
    let copy = EncodedContract::from_bytes("copy.binpb", contract.descriptor_set());
    assert!(Contracts::load([copy]).unwrap_err().to_string().contains("offers no service"));
}

#[test]
fn only_comments_of_third_party_files_are_removed() {
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
    Builder::new(PLATFORM).platform().compile(scratch.path()).unwrap().contract
}
