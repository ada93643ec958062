//! What clients were promised: the contracts of `proto/baseline.binpb`, which those of today must not break without an entry in
//! docs/breaking-changes.md. buf compares messages and RPCs; what it does not read, the options of an RPC, is compared here.

use std::{fs, sync::Arc, time::Duration};

use drystone::contract::{Contract, EncodedContract, Idempotency, Method, Subject, rest::BodyMapping};
use drystone_tests::{
    Home,
    binary::repository,
    contracts, methods,
    process::{drystone, run_to_end},
    readme,
};
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

type BreakMessages = fn(&mut FileDescriptorSet);
type BreakRule = fn(&mut Method);

fn baseline() -> Vec<Arc<Method>> {
    let bytes = fs::read(repository().join("proto/baseline.binpb")).unwrap();
    Contract::decode(EncodedContract::platform("baseline", bytes.leak())).unwrap().methods().to_vec()
}

/// What `make lint` says of these contracts: its output, or its complaint.
fn check(contracts: &[u8]) -> Result<(), String> {
    let home = Home::new();
    let file = home.path().join("contracts.binpb");
    fs::write(&file, contracts).unwrap();
    let output = readme::run(&format!("scripts/proto-baseline check {}", file.display()), &repository());
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn the_exported_contracts_break_no_client_of_the_baseline() {
    let home = Home::new();
    let file = home.path().join("drystone.binpb");
    let ended = run_to_end(drystone(&["contract", "export", "--output"]).arg(&file));
    assert!(ended.status.success(), "{ended:?}");
    check(&fs::read(&file).unwrap()).unwrap();
}

#[test]
fn a_breaking_change_is_refused_and_named() {
    let breaks: [(BreakMessages, &str); 4] = [
        (|set| message(set, "User").field.retain(|field| field.name() != "display_name"), "\"display_name\""),
        (|set| message(set, "User").field[2].json_name = Some("title".to_owned()), "option \"json_name\""),
        (|set| service(set, "UserService").method.retain(|rpc| rpc.name() != "GetMe"), "\"GetMe\""),
        // To another file of the same package.
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
    for (change, expected) in breaks {
        let mut set = FileDescriptorSet::decode(&*contracts().descriptor_set().unwrap()).unwrap();
        change(&mut set);
        let said = check(&set.encode_to_vec()).expect_err(expected);
        assert!(said.contains(expected) && said.contains("write an entry into docs/breaking-changes.md"), "{said}");
    }
}

fn message<'s>(set: &'s mut FileDescriptorSet, name: &str) -> &'s mut prost_types::DescriptorProto {
    set.file.iter_mut().flat_map(|file| &mut file.message_type).find(|message| message.name() == name).unwrap()
}

fn service<'s>(set: &'s mut FileDescriptorSet, name: &str) -> &'s mut prost_types::ServiceDescriptorProto {
    set.file.iter_mut().flat_map(|file| &mut file.service).find(|service| service.name() == name).unwrap()
}

/// What a client of `old` may do and a client of `new` may not.
fn broken(old: &[Arc<Method>], new: &[Arc<Method>]) -> Vec<String> {
    let mut broken = Vec::new();
    for old in old {
        let Some(new) = new.iter().find(|new| new.path == old.path) else {
            broken.push(format!("{} is gone", old.path));
            continue;
        };
        let mut say = |what: String| broken.push(format!("{}: {what}", old.path));
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
                say(format!("the REST path `{binding}` is gone, or takes another body"));
            }
        }
        for caller in old.callers.iter().filter(|caller| !new.callers.contains(caller)) {
            say(format!("`{caller}` may no longer call"));
        }
        if old.subject == Subject::None && new.subject == Subject::User {
            say("needs a user".to_owned());
        }
        if new.permission.is_some() && new.permission != old.permission {
            say("needs another permission".to_owned());
        }
        if new.max_auth_age.is_some_and(|new| old.max_auth_age.is_none_or(|old| new < old)) {
            say("needs a more recent sign-in".to_owned());
        }
        if old.idempotency != Idempotency::Unknown && new.idempotency == Idempotency::Unknown {
            say("may no longer be sent again".to_owned());
        }
    }
    broken
}

#[test]
fn what_buf_does_not_read_is_kept_too() {
    assert_eq!(broken(&baseline(), methods()), Vec::<String>::new(), "see docs/contracts.md, `Breaking changes`");
}

#[test]
fn each_tighter_option_counts_as_a_breaking_change() {
    let old = baseline();
    let find = |name: &str| old.iter().position(|method| method.path.ends_with(name)).unwrap();
    let (list, me, jwks) = (find("/ListUsers"), find("/GetMe"), find("/GetJwks"));
    let breaks: [(usize, BreakRule, &str); 7] = [
        (me, |method| method.rest.clear(), "the REST path `GET /v1/users/me` is gone"),
        (me, |method| method.rest[0].body = BodyMapping::Whole, "takes another body"),
        (me, |method| method.callers.retain(|caller| caller != "operator"), "`operator` may no longer call"),
        (jwks, |method| method.subject = Subject::User, "needs a user"),
        (list, |method| method.permission = Some("users:list".to_owned()), "needs another permission"),
        (me, |method| method.max_auth_age = Some(Duration::from_mins(5)), "needs a more recent sign-in"),
        (me, |method| method.idempotency = Idempotency::Unknown, "may no longer be sent again"),
    ];
    for (index, change, expected) in breaks {
        let mut new = old.clone();
        change(Arc::make_mut(&mut new[index]));
        let found = broken(&old, &new);
        assert!(matches!(&found[..], [only] if only.contains(expected)), "{expected}: {found:?}");
    }
    let mut new = old.clone();
    new.remove(me);
    assert_eq!(broken(&old, &new), ["/drystone.user.v1.UserService/GetMe is gone"]);
    // What is new or looser breaks nobody.
    let mut new = old.clone();
    let method = Arc::make_mut(&mut new[list]);
    (method.permission, method.callers) = (None, [method.callers.clone(), vec!["any".to_owned()]].concat());
    assert_eq!(broken(&old, &new), Vec::<String>::new());
    assert_eq!(broken(&old[1..], &old), Vec::<String>::new());
}
