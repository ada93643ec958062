use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, OneofDescriptorProto,
};

use super::*;

fn contracts() -> DescriptorIndex {
    super::super::descriptors(&drystone::contracts().unwrap()).unwrap()
}

fn name_of(encoded: &Bytes) -> String {
    FileDescriptor::decode(encoded.clone()).unwrap().name
}

fn message(name: &str) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), ..DescriptorProto::default() }
}

fn file(name: &str, package: &str, dependencies: &[&str], messages: &[&str]) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        dependency: dependencies.iter().map(|&name| name.to_owned()).collect(),
        message_type: messages.iter().map(|name| message(name)).collect(),
        ..FileDescriptorProto::default()
    }
}

fn set(files: Vec<FileDescriptorProto>) -> Bytes {
    FileDescriptorSet { file: files }.encode_to_vec().into()
}

#[test]
fn files_are_the_bytes_of_the_set() {
    let index = contracts();
    let set = drystone::CONTRACT.descriptor_set();
    for known in index.files.iter().filter(|file| file.set == 1) {
        let found = set.windows(known.encoded.len()).any(|bytes| bytes.as_ptr() == known.encoded.as_ptr());
        assert!(found, "{} is a copy", known.name);
    }
}

#[test]
fn symbols_of_every_kind_are_found() {
    let mut known = file("acme/a.proto", "acme.v1", &[], &["Order"]);
    let order = &mut known.message_type[0];
    let field = |name: &str| FieldDescriptorProto { name: Some(name.to_owned()), ..FieldDescriptorProto::default() };
    order.field.push(field("price"));
    order.oneof_decl.push(OneofDescriptorProto { name: Some("payer".to_owned()), ..OneofDescriptorProto::default() });
    order.nested_type.push(message("Line"));
    let value = EnumValueDescriptorProto { name: Some("PAID".to_owned()), ..EnumValueDescriptorProto::default() };
    let state = EnumDescriptorProto { name: Some("State".to_owned()), value: vec![value], ..Default::default() };
    order.enum_type.push(state.clone());
    known.enum_type.push(state);
    known.extension.push(FieldDescriptorProto {
        extendee: Some(".google.protobuf.MethodOptions".to_owned()),
        number: Some(50_000),
        ..field("limit")
    });
    let index = DescriptorIndex::new([set(vec![known])]).unwrap();
    for symbol in
        ["Order", "Order.price", "Order.payer", "Order.Line", "Order.State", "Order.PAID", "State", "PAID", "limit"]
    {
        assert_eq!(index.file_with_symbol(&format!("acme.v1.{symbol}")), Some(0), "{symbol}");
    }
    for symbol in [
        "acme.v1",
        "acme.v1.",
        "acme.v1.Orde",
        "acme.v1x.Order",
        "Order",
        "acme.v1.Order.State.PAID",
        "acme.v1.State.X",
        "",
    ] {
        assert_eq!(index.file_with_symbol(symbol), None, "{symbol}");
    }
    assert_eq!(index.extension_numbers("google.protobuf.MethodOptions"), Some(vec![50_000]));
    assert_eq!(index.extension_numbers("acme.v1.Order"), Some(vec![]));
    assert_eq!(index.extension_numbers("acme.v1.State"), None, "it is no message");

    let contracts = contracts();
    for symbol in ["drystone.user.v1.UserService", "drystone.user.v1.UserService.GetMe", "grpc.health.v1.Health"] {
        assert!(contracts.file_with_symbol(symbol).is_some(), "{symbol}");
    }
}

#[test]
fn custom_options_are_found_by_the_extended_message() {
    let index = contracts();
    let numbers = index.extension_numbers("google.protobuf.MethodOptions").unwrap();
    assert!(numbers.contains(&50701) && numbers.contains(&72_295_728), "{numbers:?}");
    let rule = index.file_with_extension("google.protobuf.MethodOptions", 50701).unwrap();
    assert!(index.files[rule].name.starts_with("drystone/access/"), "{}", index.files[rule].name);
    assert_eq!(index.file_with_extension("google.protobuf.FieldOptions", 50701), None);
}

#[test]
fn a_file_is_returned_with_its_dependencies_once() {
    let index = contracts();
    let mut sent = HashSet::new();
    let user = index.file_with_symbol("drystone.user.v1.UserService").unwrap();
    let first = index.with_dependencies(user, &mut sent);
    let names: BTreeSet<String> = first.iter().map(name_of).collect();
    assert_eq!(names.len(), first.len());
    assert!(names.contains("google/protobuf/descriptor.proto"), "{names:?}");
    for encoded in &first {
        let dependencies = FileDescriptor::decode(encoded.clone()).unwrap().dependencies;
        assert!(dependencies.iter().all(|dependency| names.contains(dependency)), "{dependencies:?}");
    }
    let again = index.with_dependencies(user, &mut sent);
    assert_eq!(again, first[..1], "only the requested file");
}

#[test]
fn a_duplicate_file_name_finds_the_first_file_and_symbols_find_each() {
    let first_set =
        set(vec![file("common.proto", "common", &[], &["A"]), file("first.proto", "first", &["common.proto"], &[])]);
    let second_set = set(vec![
        file("common.proto", "common", &[], &["A", "B"]),
        file("second.proto", "second", &["common.proto"], &[]),
    ]);
    let index = DescriptorIndex::new([first_set.clone(), second_set, first_set]).unwrap();
    assert_eq!(index.files.len(), 4, "an equal file is held once");
    let first = index.file("common.proto").unwrap();
    assert_eq!(index.file_with_symbol("common.A"), Some(first));
    let second = index.file_with_symbol("common.B").unwrap();
    assert_ne!(second, first);
    let files = index.with_dependencies(index.file("second.proto").unwrap(), &mut HashSet::new());
    assert_eq!(files[1], index.files[second].encoded, "a contract is served with what it was compiled with");
}

#[test]
fn an_invalid_descriptor_set_is_rejected() {
    for bytes in [&b"\x0a"[..], b"\x0a\x05abc", b"\x0a\x02\x0a\x05", b"\xff"] {
        let error = DescriptorIndex::new([Bytes::new(), Bytes::from_static(bytes)]).unwrap_err();
        assert_eq!(error.position, 2, "{bytes:?}");
    }
}
