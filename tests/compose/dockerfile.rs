//! The Dockerfile.

use drystone_tests::binary::repository;

use crate::{
    confinement::is_pinned,
    file::{Compose, path, text, texts},
};

/// The instructions, each on one line, without comments.
fn instructions() -> Vec<(String, String)> {
    let text = text("Dockerfile");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

fn all(name: &str) -> Vec<String> {
    instructions().into_iter().filter(|(found, _)| found == name).map(|(_, rest)| rest).collect()
}

#[test]
fn the_image_matches_the_compose_file() {
    let [entrypoint] = &all("ENTRYPOINT")[..] else { panic!("not exactly one ENTRYPOINT") };
    assert_eq!(entrypoint, r#"["/drystone"]"#);
    let compose = Compose::read();
    for service in compose.mesh_services() {
        assert_eq!(texts(&service.value("healthcheck")["test"])[1], "/drystone", "{}", service.name);
        assert_eq!((service.text("build"), service.has("entrypoint")), (".", false), "{}", service.name);
        let image = format!("drystone:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(service.text("image"), image, "the image has the version of the workspace");
        assert!(text("deploy/compose/setup").contains(&format!(" {image} certs ")), "setup runs the same image");
    }
    let [user] = &all("USER")[..] else { panic!("not exactly one USER") };
    let ids: Vec<u32> =
        user.split(':').map(|id| id.parse().expect("a numeric id, which needs no /etc/passwd")).collect();
    assert!(ids.len() == 2 && !ids.contains(&0), "{user}");
    let labels = all("LABEL").concat();
    for key in ["title", "description", "source", "licenses", "revision"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{key}=")), "{key}");
    }
    assert!(labels.contains(&format!("image.version=\"{}\"", env!("CARGO_PKG_VERSION"))), "{labels}");
}

#[test]
fn the_image_has_a_pinned_build_stage_and_starts_from_scratch() {
    let stages = all("FROM");
    let [build, image] = &stages[..] else { panic!("{stages:?}") };
    assert!(is_pinned(build.split(' ').next().unwrap()) && build.ends_with(" AS build"), "{build}");
    assert_eq!(image, "scratch");
    let copied = all("COPY");
    assert_eq!(copied.last().map(String::as_str), Some("--from=build /image/ /"));
    // The version of Rust is the one that Cargo.toml names.
    let manifest = text("Cargo.toml");
    let needed = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(build.starts_with(&format!("rust:{needed}.")), "{build} is not Rust {needed}");
}

#[test]
fn every_build_input_is_copied_and_not_ignored() {
    let copied: Vec<String> = all("COPY").into_iter().filter(|rest| !rest.starts_with("--from")).collect();
    let sources: Vec<&str> = copied
        .iter()
        .flat_map(|rest| {
            let words: Vec<&str> = rest.split(' ').collect();
            words[..words.len() - 1].to_vec()
        })
        .collect();
    let ignored = text(".dockerignore");
    assert!(ignored.lines().any(|line| line == "*"), ".dockerignore excludes everything that it does not list");
    for source in &sources {
        assert!(path(source).exists(), "{source} is missing");
        assert!(ignored.lines().any(|line| line == format!("!{source}")), "{source} is excluded by .dockerignore");
    }
    for needed in [".cargo", "Cargo.toml", "Cargo.lock", "build.rs", "build", "proto"] {
        assert!(sources.contains(&needed), "the build reads {needed}");
    }
    // Cargo reads the manifest of every workspace member.
    let manifest = text("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    for member in members.trim_matches(['[', ']']).split(", ").map(|member| member.trim_matches('"')) {
        let top = member.split('/').next().unwrap();
        assert!(sources.contains(&top), "{member} is a member of the workspace");
    }
    // The protoc of .cargo/config.toml must exist and be executable.
    let protoc = repository().join("build/protoc");
    let mode = std::os::unix::fs::PermissionsExt::mode(&protoc.metadata().unwrap().permissions());
    assert!(text(".cargo/config.toml").contains("build/protoc") && mode & 0o111 != 0);
}
