//! Writes Rust from a contract that has passed its checks.

use std::{error::Error, fmt::Write as _, fs, path::Path};

use prost_reflect::{Kind, MessageDescriptor, prost::Message as _, prost_types::FileDescriptorSet};

use crate::contract::Contract;

/// The access table, as the source of three statics: `METHODS`, `PERMISSIONS` and `WORKLOADS`.
pub fn method_table(contract: &Contract) -> String {
    let mut source = String::from("/// Every RPC of ours.\npub static METHODS: &[Method] = &[\n");
    for method in &contract.methods {
        let max_auth_age = method.max_auth_age.map(|age| age.as_secs());
        let _ = writeln!(
            source,
            "    Method {{ path: {:?}, callers: &{:?}, subject: Subject::{}, permission: {:?}, \
             max_auth_age: {}, audited: {}, idempotency: Idempotency::{}, client_streaming: {}, server_streaming: {}, rest: &{:?} }},",
            method.path,
            method.callers,
            if method.subject == "SUBJECT_USER" { "User" } else { "None" },
            method.permission,
            max_auth_age.map_or("None".to_owned(), |age| format!("Some(std::time::Duration::from_secs({age}))")),
            method.audited,
            match method.idempotency.as_str() {
                "NO_SIDE_EFFECTS" => "NoSideEffects",
                "IDEMPOTENT" => "Idempotent",
                _ => "Unknown",
            },
            method.client_streaming,
            method.server_streaming,
            method.rest,
        );
    }
    source
        .push_str("];\n\n/// Every permission that a service declares.\npub static PERMISSIONS: &[Permission] = &[\n");
    for permission in &contract.permissions {
        let _ = writeln!(
            source,
            "    Permission {{ name: {:?}, description: {:?} }},",
            permission.name, permission.description
        );
    }
    source.push_str("];\n\n");
    let _ = writeln!(
        source,
        "/// Every workload of a mesh, by name: those that serve an RPC, and those in front of them.\npub static WORKLOADS: &[&str] = &{:?};",
        contract.workloads.iter().collect::<Vec<_>>()
    );
    source
}

/// Messages, clients, servers, validation and redacting `Debug`s, each as a file in `out`.
pub fn code(contract: &Contract, descriptor_set: &[u8], out: &Path) -> Result<(), Box<dyn Error>> {
    let messages: Vec<MessageDescriptor> =
        contract.pool.all_messages().filter(|message| is_ours(message) && !message.is_map_entry()).collect();
    let secretive: Vec<&MessageDescriptor> = messages.iter().filter(|message| has_secrets(message)).collect();

    tonic_prost_build::configure()
        .out_dir(out)
        .codec_path("crate::codec::ContractCodec")
        .skip_debug(secretive.iter().map(|message| format!(".{}", message.full_name())))
        .compile_fds(FileDescriptorSet::decode(descriptor_set)?)?;

    fs::write(
        out.join("redacted_debug.rs"),
        secretive.iter().map(|message| redacted_debug(message)).collect::<String>(),
    )?;
    validation(&messages, descriptor_set, out)
}

/// Writes `impl Validate` for every message of ours: from its rules, or empty where it has none, so that
/// the codec can ask it of any message.
fn validation(messages: &[MessageDescriptor], descriptor_set: &[u8], out: &Path) -> Result<(), Box<dyn Error>> {
    prost_protovalidate_build::Builder::new()
        .file_descriptor_set_bytes(descriptor_set.to_vec())
        // A rule that cannot be enforced here is refused, never skipped.
        .fail_on_runtime_only(true)
        // No message of ours holds one of these: they are options, read at build time.
        .extern_path(".google.api", "::google::api")
        .out_dir(out)
        .compile()?;

    let path = out.join("validate_impl.rs");
    let mut source = fs::read_to_string(&path)?;
    for message in messages {
        let name = rust_path(message);
        if !source.contains(&format!("for {name} {{")) {
            let _ = writeln!(
                source,
                "impl ::prost_protovalidate::Validate for {name} {{ \
                 fn validate(&self) -> Result<(), ::prost_protovalidate::ValidationError> {{ Ok(()) }} }}"
            );
        }
    }
    Ok(fs::write(path, source)?)
}

/// A `Debug` that shows every field but those marked `debug_redact`.
fn redacted_debug(message: &MessageDescriptor) -> String {
    let fields: String = message
        .fields()
        .map(|field| {
            let name = field.name();
            if is_secret(&field) {
                format!(".field({name:?}, &\"[redacted]\")")
            } else {
                format!(".field({name:?}, &self.{name})")
            }
        })
        .collect();
    format!(
        "impl ::core::fmt::Debug for {} {{ fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{ \
         f.debug_struct({:?}){fields}.finish() }} }}\n",
        rust_path(message),
        message.name()
    )
}

fn has_secrets(message: &MessageDescriptor) -> bool {
    message.fields().any(|field| is_secret(&field))
}

fn is_secret(field: &prost_reflect::FieldDescriptor) -> bool {
    let marked = field.options().get_field_by_name("debug_redact").and_then(|value| value.as_bool());
    // A message that is secret as a whole would need its own answer; none is.
    marked.unwrap_or_default() && !matches!(field.kind(), Kind::Message(_))
}

fn is_ours(message: &MessageDescriptor) -> bool {
    message.package_name().starts_with("drystone.")
}

fn rust_module(package: &str) -> String {
    package.replace('.', "::")
}

fn rust_path(message: &MessageDescriptor) -> String {
    format!("{}::{}", rust_module(message.package_name()), message.name())
}
