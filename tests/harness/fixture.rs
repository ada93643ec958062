//! A contract for tests of the edge that uses every feature of `google.api.http` that the edge supports.

use std::{process::Command, sync::LazyLock};

use prost_reflect::{DescriptorPool, MessageDescriptor};

/// The package of `fixture.proto`.
pub const PACKAGE: &str = "acme.fixture.v1";

static DESCRIPTOR_SET: LazyLock<Vec<u8>> =
    LazyLock::new(|| compile(include_str!("fixture.proto")).expect("the fixture is a valid contract"));

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(descriptor_set()).unwrap());

/// The fixture's encoded descriptor set.
pub fn descriptor_set() -> &'static [u8] {
    &DESCRIPTOR_SET
}

/// The descriptor of a message of the fixture.
pub fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("{PACKAGE}.{name}")).unwrap()
}

/// Compiles a contract.
///
/// # Errors
/// The output of protoc.
pub fn compile(source: &str) -> Result<Vec<u8>, String> {
    let scratch = tempfile::tempdir().unwrap();
    let (file, output) = (scratch.path().join("fixture.proto"), scratch.path().join("fixture.binpb"));
    std::fs::write(&file, source).unwrap();
    let proto = crate::binary::repository().join("proto");
    let protoc = Command::new(protoc_bin_vendored::protoc_bin_path().unwrap())
        .arg("--include_imports")
        .arg(format!("--descriptor_set_out={}", output.display()))
        .arg(format!("--proto_path={}", scratch.path().display()))
        .arg(format!("--proto_path={}", proto.display()))
        .arg(format!("--proto_path={}", protoc_bin_vendored::include_path().unwrap().display()))
        .arg("fixture.proto")
        .output()
        .unwrap();
    if protoc.status.success() {
        Ok(std::fs::read(output).unwrap())
    } else {
        Err(String::from_utf8_lossy(&protoc.stderr).into_owned())
    }
}
