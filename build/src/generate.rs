//! Generates Rust code from a valid contract.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt::Write as _,
    fs,
    path::Path,
};

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_build::{Service, ServiceGenerator};
use prost_reflect::{FieldDescriptor, MessageDescriptor, prost::Message as _, prost_types::FileDescriptorSet};

use crate::Compiled;

/// The codec of clients, which does not validate responses.
const CLIENT_CODEC: &str = "tonic_prost::ProstCodec";

/// Writes messages, clients, servers, validation, redacted `Debug`s and `CONTRACT`, as `contract.rs` and its includes.
pub(crate) fn write(compiled: &Compiled, is_platform: bool, out: &Path) -> Result<(), Box<dyn Error>> {
    let set = compiled.contract.descriptor_set();
    fs::write(out.join("descriptor_set.binpb"), set)?;
    let target = Target::of(compiled, is_platform);
    let redacted_messages: Vec<&MessageDescriptor> =
        target.messages.iter().filter(|message| has_secrets(message)).collect();

    write_code(set, &redacted_messages, &target, out)?;
    write_validation(set, &target, out)?;
    let redacted: String = redacted_messages.iter().map(|message| redacted_debug(message)).collect();
    fs::write(out.join("redacted_debug.rs"), redacted)?;
    Ok(fs::write(out.join("contract.rs"), target.modules(compiled.contract.name()))?)
}

/// What is generated, and its Rust paths.
struct Target {
    is_platform: bool,
    packages: BTreeSet<String>,
    messages: Vec<MessageDescriptor>,
}

impl Target {
    fn of(compiled: &Compiled, is_platform: bool) -> Self {
        let is_own = |name: &str| compiled.files.iter().any(|file| file == name) && !crate::is_third_party(name);
        let pool = compiled.contract.pool();
        let files = pool.files().filter(|file| is_own(file.name()));
        let packages = files.map(|file| file.package_name().to_owned()).collect();
        let messages = pool.all_messages().filter(|message| is_own(message.parent_file().name()));
        Self { is_platform, packages, messages: messages.filter(|message| !message.is_map_entry()).collect() }
    }

    fn server_codec(&self) -> &'static str {
        if self.is_platform { "crate::codec::ValidatingCodec" } else { "::drystone::codec::ValidatingCodec" }
    }

    /// The paths of packages that are generated elsewhere: those of Drystone and `google.rpc` are in the crate `drystone`.
    fn extern_paths(&self) -> &'static [(&'static str, &'static str)] {
        if self.is_platform { &[] } else { &[(".drystone", "::drystone"), (".google.rpc", "::drystone::google::rpc")] }
    }

    /// `contract.rs`: a module for each package, trait implementations, and `CONTRACT`.
    fn modules(&self, name: &str) -> String {
        let mut tree = ModuleTree::default();
        for package in &self.packages {
            // The crate `drystone` is itself the module `drystone`.
            let path = if self.is_platform { package.trim_start_matches("drystone.") } else { package };
            tree.insert(path.split('.'), package);
        }
        let mut source = String::new();
        tree.write(&mut source);
        let roots: BTreeSet<&str> = self.packages.iter().filter_map(|package| package.split('.').next()).collect();
        let uses = if self.is_platform {
            "use crate as drystone;".to_owned()
        } else {
            roots.iter().map(|root| ["use super::", &identifier(root), ";"].concat()).collect()
        };
        let contract = if self.is_platform {
            "::drystone_contract::EncodedContract::platform"
        } else {
            "::drystone::contract::EncodedContract::embedded"
        };
        let kind = contract.rsplit_once("::").map_or(contract, |(kind, _)| kind);
        let _ = writeln!(
            source,
            "#[allow(clippy::all, clippy::pedantic, clippy::expect_used, unused_imports, unused_mut, missing_docs)]\n\
             mod contract_impls {{\n    {uses}\n    \
             include!(concat!(env!(\"OUT_DIR\"), \"/validate_impl.rs\"));\n    \
             include!(concat!(env!(\"OUT_DIR\"), \"/redacted_debug.rs\"));\n}}\n\n\
             /// The contract: its descriptor set, byte for byte as it was compiled.\n\
             pub static CONTRACT: {kind} = {contract}({:?}, include_bytes!(concat!(env!(\"OUT_DIR\"), \"/descriptor_set.binpb\")));",
            if self.is_platform { name } else { self.packages.first().map_or(name, String::as_str) },
        );
        source
    }
}

/// Packages as nested modules.
#[derive(Default)]
struct ModuleTree<'a> {
    package: Option<&'a str>,
    modules: BTreeMap<&'a str, Self>,
}

impl<'a> ModuleTree<'a> {
    fn insert(&mut self, mut path: impl Iterator<Item = &'a str>, package: &'a str) {
        match path.next() {
            Some(segment) => self.modules.entry(segment).or_default().insert(path, package),
            None => self.package = Some(package),
        }
    }

    fn write(&self, source: &mut String) {
        for (name, module) in &self.modules {
            let name = identifier(&name.to_snake_case());
            let doc = module
                .package
                .map_or_else(|| format!("Packages `{name}`."), |package| format!("The package `{package}`."));
            let _ =
                writeln!(source, "/// {doc}\n#[allow(clippy::all, clippy::pedantic, missing_docs)]\npub mod {name} {{");
            if let Some(package) = module.package {
                let _ = writeln!(source, "include!(concat!(env!(\"OUT_DIR\"), \"/{package}.rs\"));");
            }
            module.write(source);
            source.push_str("}\n");
        }
    }
}

fn write_code(
    set: &[u8],
    redacted_messages: &[&MessageDescriptor],
    target: &Target,
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    let mut config = prost_build::Config::new();
    config.out_dir(out);
    config.skip_debug(redacted_messages.iter().map(|message| format!(".{}", message.full_name())));
    for (proto, rust) in target.extern_paths() {
        config.extern_path(*proto, *rust);
    }
    config.service_generator(Box::new(ServiceGenerators {
        clients: tonic_prost_build::configure().build_server(false).codec_path(CLIENT_CODEC).service_generator(),
        servers: tonic_prost_build::configure()
            .build_client(false)
            .codec_path(target.server_codec())
            .service_generator(),
    }));
    Ok(config.compile_fds(FileDescriptorSet::decode(set)?)?)
}

/// Generates clients and servers with different codecs: only servers validate messages.
struct ServiceGenerators {
    clients: Box<dyn ServiceGenerator>,
    servers: Box<dyn ServiceGenerator>,
}

impl ServiceGenerator for ServiceGenerators {
    fn generate(&mut self, service: Service, source: &mut String) {
        self.clients.generate(service.clone(), source);
        self.servers.generate(service, source);
    }
}

/// Writes `impl Validate` for every message of the contract, empty for a message without rules, since the codec requires
/// it.
fn write_validation(set: &[u8], target: &Target, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut builder = prost_protovalidate_build::Builder::new()
        .file_descriptor_set_bytes(set.to_vec())
        // A rule that generated code cannot enforce is an error.
        .fail_on_runtime_only(true)
        .extern_path(".google.api", "::google::api")
        .out_dir(out);
    for (proto, rust) in target.extern_paths() {
        builder = builder.extern_path(*proto, *rust);
    }
    builder.compile()?;

    let path = out.join("validate_impl.rs");
    let mut source = without_imported(&fs::read_to_string(&path)?);
    for message in &target.messages {
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

/// Removes implementations for messages of another crate, which has them already. Each generated item ends with a brace at
/// the start of a line.
fn without_imported(source: &str) -> String {
    let is_imported = |item: &&str| item.lines().any(|line| line.starts_with("impl ") && line.contains(" for ::"));
    source.split_inclusive("\n}\n").filter(|item| !is_imported(item)).collect()
}

/// A `Debug` that redacts fields marked `debug_redact`. Validation of the contract ensures that none is inside a oneof.
fn redacted_debug(message: &MessageDescriptor) -> String {
    let plain = message.fields().filter(|field| !is_in_oneof(field)).map(|field| {
        let name = field.name().to_snake_case();
        if is_secret(&field) {
            format!(".field({name:?}, &\"[redacted]\")")
        } else {
            format!(".field({name:?}, &self.{})", identifier(&name))
        }
    });
    let oneofs = message.oneofs().filter(|oneof| !oneof.is_synthetic()).map(|oneof| {
        let name = oneof.name().to_snake_case();
        format!(".field({name:?}, &self.{})", identifier(&name))
    });
    let fields: String = plain.chain(oneofs).collect();
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

fn is_secret(field: &FieldDescriptor) -> bool {
    field.options().get_field_by_name("debug_redact").and_then(|value| value.as_bool()).unwrap_or_default()
}

/// The synthetic oneof of a proto3 `optional` field does not count; in Rust it is a plain field.
fn is_in_oneof(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic())
}

/// The Rust path of a message, relative to the modules of the packages.
fn rust_path(message: &MessageDescriptor) -> String {
    let mut path: Vec<String> =
        message.package_name().split('.').map(|segment| identifier(&segment.to_snake_case())).collect();
    let mut parents = Vec::new();
    let mut parent = message.parent_message();
    while let Some(outer) = parent {
        parents.push(identifier(&outer.name().to_snake_case()));
        parent = outer.parent_message();
    }
    path.extend(parents.into_iter().rev());
    path.push(identifier(&message.name().to_upper_camel_case()));
    path.join("::")
}

/// A Rust identifier in the style of prost: a keyword becomes a raw identifier.
fn identifier(name: &str) -> String {
    const KEYWORDS: [&str; 48] = [
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn", "else", "enum",
        "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
        "move", "mut", "override", "priv", "pub", "ref", "return", "static", "struct", "trait", "true", "try", "type",
        "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
    ];
    match name {
        "self" | "super" | "crate" | "Self" => format!("{name}_"),
        name if KEYWORDS.contains(&name) => format!("r#{name}"),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Builder;

    /// Compiles a contract with this message and generates its code.
    fn generate(message: &str) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let source = format!(
            "syntax = \"proto3\"; package acme.stone.v1; \
             import \"drystone/access/v1/access.proto\"; import \"buf/validate/validate.proto\"; {message} \
             service S {{ option (drystone.access.v1.workload) = \"stone\"; rpc Lay(M) returns (M) {{ \
             option idempotency_level = IDEMPOTENT; \
             option (drystone.access.v1.rule) = {{ callers: \"any\" subject: SUBJECT_NONE }}; }} }}"
        );
        let (root, out) = (folder.path().join("proto"), folder.path().join("out"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&out).unwrap();
        fs::write(root.join("stone.proto"), source).unwrap();
        let compiled = Builder::new(&root).compile(folder.path()).map_err(|error| format!("compile: {error}"))?;
        write(&compiled, false, &out).map_err(|error| error.to_string())
    }

    #[test]
    fn a_validation_rule_that_generated_code_cannot_enforce_is_rejected() {
        assert_eq!(generate("message M { string text = 1 [(buf.validate.field).string.max_len = 3]; }"), Ok(()));
        let cel = "{ id: \"text.x\" message: \"is not x\" expression: \"this != 'x'\" }";
        let error =
            generate(&format!("message M {{ string text = 1 [(buf.validate.field).cel = {cel}]; }}")).unwrap_err();
        assert!(error.contains("acme.stone.v1.M") && error.contains("requires runtime validation"), "{error}");
    }
}
