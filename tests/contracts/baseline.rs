//! Compatibility of the contracts with `proto/baseline.binpb`. A breaking change needs an entry in
//! docs/breaking-changes.md. buf compares messages and RPCs; the options of RPCs, which buf ignores, are compared here.

use std::{fs, sync::Arc, time::Duration};

use drystone::contract::{Contract, EncodedContract, Factors, Idempotency, Method, Subject, rest::BodyMapping};
use drystone_tests::{
    Home,
    binary::repository,
    contracts, methods,
    process::{drystone, run_to_end},
    readme,
};
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

type ChangeMessages = fn(&mut FileDescriptorSet);
type ChangeMethod = fn(&mut Method);

fn baseline() -> Vec<Arc<Method>> {
    let bytes = fs::read(repository().join("proto/baseline.binpb")).unwrap();
    Contract::decode(EncodedContract::platform("baseline", bytes.leak())).unwrap().methods().to_vec()
}

/// Runs the check of `make lint` on these contracts; its output if it fails.
fn check(contracts: &[u8]) -> Result<(), String> {
    let home = Home::new();
    let file = home.path().join("contracts.binpb");
    fs::write(&file, contracts).unwrap();
    let output = readme::run(&format!("scripts/proto-baseline check {}", file.display()), &repository());
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    if output.status.success() { Ok(()) } else { Err(text) }
}

#[test]
fn the_exported_contracts_are_compatible_with_the_baseline() {
    let home = Home::new();
    let file = home.path().join("drystone.binpb");
    let ended = run_to_end(drystone(&["contract", "export", "--output"]).arg(&file));
    assert!(ended.status.success(), "{ended:?}");
    check(&fs::read(&file).unwrap()).unwrap();
}

#[test]
fn a_breaking_change_is_detected_and_named() {
    let changes: [(ChangeMessages, &str); 4] = [
        (|set| message(set, "User").field.retain(|field| field.name() != "display_name"), "\"display_name\""),
        (|set| message(set, "User").field[2].json_name = Some("title".to_owned()), "option \"json_name\""),
        (|set| service(set, "UserService").method.retain(|rpc| rpc.name() != "GetMe"), "\"GetMe\""),
        // A message moves to another file of the same package.
        (
            |set| {
                let moved = message(set, "GetMeRequest").clone();
                let from = set.file.iter().position(|file| file.name() == "drystone/user/v1/user.proto").unwrap();
                let file = &mut set.file[from];
                file.message_type.retain(|other| *other != moved);
                file.dependency.push("drystone/user/v1/me.proto".to_owned());
                let me = FileDescriptorProto {
                    name: Some("drystone/user/v1/me.proto".to_owned()),
                    message_type: vec![moved],
                    dependency: Vec::new(),
                    public_dependency: Vec::new(),
                    weak_dependency: Vec::new(),
                    enum_type: Vec::new(),
                    service: Vec::new(),
                    extension: Vec::new(),
                    source_code_info: None,
                    ..file.clone()
                };
                set.file.insert(from, me);
            },
            "message \"GetMeRequest\" was deleted from file",
        ),
    ];
    for (change, expected) in changes {
        let mut set = FileDescriptorSet::decode(&*contracts().descriptor_set().unwrap()).unwrap();
        change(&mut set);
        let text = check(&set.encode_to_vec()).expect_err(expected);
        assert!(text.contains(expected) && text.contains("write an entry into docs/breaking-changes.md"), "{text}");
    }
}

fn message<'s>(set: &'s mut FileDescriptorSet, name: &str) -> &'s mut prost_types::DescriptorProto {
    set.file.iter_mut().flat_map(|file| &mut file.message_type).find(|message| message.name() == name).unwrap()
}

fn service<'s>(set: &'s mut FileDescriptorSet, name: &str) -> &'s mut prost_types::ServiceDescriptorProto {
    set.file.iter_mut().flat_map(|file| &mut file.service).find(|service| service.name() == name).unwrap()
}

/// The changes from `old` to `new` that break clients.
fn breaking_changes(old: &[Arc<Method>], new: &[Arc<Method>]) -> Vec<String> {
    let mut changes = Vec::new();
    for old in old {
        let Some(new) = new.iter().find(|new| new.path == old.path) else {
            changes.push(format!("{} was removed", old.path));
            continue;
        };
        let mut report = |text: String| changes.push(format!("{}: {text}", old.path));
        for binding in &old.rest {
            let body = |body: &BodyMapping| match body {
                BodyMapping::Nothing => String::new(),
                BodyMapping::Whole => "*".to_owned(),
                BodyMapping::Field(field) => field.name().to_owned(),
            };
            let is_same = |other: &&drystone::contract::rest::Binding| {
                other.to_string() == binding.to_string() && body(&other.body) == body(&binding.body)
            };
            if !new.rest.iter().any(|other| is_same(&other)) {
                report(format!("the REST path `{binding}` was removed, or has another body"));
            }
        }
        for caller in old.callers.iter().filter(|caller| !new.callers.contains(caller)) {
            report(format!("`{caller}` may no longer call"));
        }
        if old.subject == Subject::None && new.subject == Subject::User {
            report("needs a user".to_owned());
        }
        if new.permission.is_some() && new.permission != old.permission {
            report("needs another permission".to_owned());
        }
        if new.factors > old.factors {
            report("needs other factors".to_owned());
        }
        if new.max_auth_age.is_some_and(|new| old.max_auth_age.is_none_or(|old| new < old)) {
            report("needs a more recent sign-in".to_owned());
        }
        if old.idempotency != Idempotency::Unknown && new.idempotency == Idempotency::Unknown {
            report("may no longer be retried".to_owned());
        }
    }
    changes
}

#[test]
fn rpc_options_are_compatible_with_the_baseline() {
    assert_eq!(
        breaking_changes(&baseline(), methods()),
        Vec::<String>::new(),
        "see docs/contracts.md, `Breaking changes`"
    );
}

#[test]
fn each_stricter_rpc_option_is_a_breaking_change() {
    let old = baseline();
    let find = |name: &str| old.iter().position(|method| method.path.ends_with(name)).unwrap();
    let (list, me, jwks) = (find("/ListUsers"), find("/GetMe"), find("/GetJwks"));
    let changes: [(usize, ChangeMethod, &str); 8] = [
        (me, |method| method.rest.clear(), "the REST path `GET /v1/users/me` was removed"),
        (me, |method| method.rest[0].body = BodyMapping::Whole, "has another body"),
        (me, |method| method.callers.retain(|caller| caller != "operator"), "`operator` may no longer call"),
        (jwks, |method| method.subject = Subject::User, "needs a user"),
        (list, |method| method.permission = Some("users:list".to_owned()), "needs another permission"),
        (me, |method| method.factors = Some(Factors::Two), "needs other factors"),
        (me, |method| method.max_auth_age = Some(Duration::from_mins(5)), "needs a more recent sign-in"),
        (me, |method| method.idempotency = Idempotency::Unknown, "may no longer be retried"),
    ];
    for (index, change, expected) in changes {
        let mut new = old.clone();
        change(Arc::make_mut(&mut new[index]));
        let found = breaking_changes(&old, &new);
        assert!(matches!(&found[..], [only] if only.contains(expected)), "{expected}: {found:?}");
    }
    let mut new = old.clone();
    new.remove(me);
    assert_eq!(breaking_changes(&old, &new), ["/drystone.user.v1.UserService/GetMe was removed"]);
    // Additions and less strict options are compatible.
    let mut new = old.clone();
    let method = Arc::make_mut(&mut new[list]);
    (method.permission, method.callers) = (None, [method.callers.clone(), vec!["any".to_owned()]].concat());
    assert_eq!(breaking_changes(&old, &new), Vec::<String>::new());
    assert_eq!(breaking_changes(&old[1..], &old), Vec::<String>::new());
}
