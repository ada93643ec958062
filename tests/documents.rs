//! Documents name files and tests that exist.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Prefixes of paths in other repositories, and of generated files.
const IGNORED_PREFIXES: [&str; 4] = ["buf/", "certs/dev/", "target/", "transport/"];

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files_under(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && name != "target" && name != "node_modules" && !name.starts_with('.') {
            files_under(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// The targets of Markdown links to files of the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.map(|target| target.split('#').next().unwrap_or_default());
    targets.filter(|target| !target.is_empty() && !target.contains("://") && !target.contains("::"))
}

/// The paths in backticks: `directory/file`, without placeholders, patterns and other code.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let is_path = |path: &&str| {
        let is_plain = path.bytes().all(|byte| byte.is_ascii_lowercase() || b"0123456789_-./".contains(&byte));
        let file = path.rsplit('/').next().unwrap_or_default();
        let is_checked =
            !path.starts_with(['/', '.', '-']) && !IGNORED_PREFIXES.iter().any(|start| path.starts_with(start));
        is_plain && is_checked && path.contains('/') && file.contains('.')
    };
    text.split('`').skip(1).step_by(2).filter(is_path)
}

#[test]
fn links_and_paths_in_documents_lead_to_files() {
    let root = root();
    let mut documents = Vec::new();
    files_under(&root, "md", &mut documents);
    assert!(documents.len() > 15, "{documents:?}");
    let mut missing = Vec::new();
    for document in &documents {
        let (text, directory) = (fs::read_to_string(document).unwrap(), document.parent().unwrap());
        // Without code blocks, whose fences break the pairing of backticks.
        let prose: String = text.split("```").step_by(2).collect();
        let of_links = links(&prose).filter(|target| !directory.join(target).exists());
        missing.extend(of_links.map(|target| format!("{}: link to {target}", document.display())));
        // The tutorial names files of the generated service.
        if document.ends_with("tutorial.md") {
            continue;
        }
        let bases =
            ["", "services/auth/src", "services/edge/src", "services/user/src", "mesh/src"].map(|base| root.join(base));
        let bases = [&bases[..], &[directory.to_owned()]].concat();
        let of_paths = paths(&prose).filter(|path| !bases.iter().any(|base| base.join(path).exists()));
        missing.extend(of_paths.map(|path| format!("{}: `{path}`", document.display())));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn paths_in_the_documentation_of_crates_lead_to_files() {
    let root = root();
    let mut sources = Vec::new();
    files_under(&root, "rs", &mut sources);
    let mut missing = Vec::new();
    for source in sources.iter().filter(|source| source.ends_with("src/lib.rs")) {
        let text = fs::read_to_string(source).unwrap();
        let documentation: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("//!")).collect();
        let package = source.parent().unwrap().parent().unwrap();
        let bases = [root.clone(), root.join("proto"), package.to_owned(), package.join("src")];
        let documentation = documentation.join("\n");
        let prose: String = documentation.split("```").step_by(2).collect();
        let of_paths = paths(&prose).filter(|path| !bases.iter().any(|base| base.join(path).exists()));
        missing.extend(of_paths.map(|path| format!("{}: `{path}`", source.display())));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// The tests quoted in backticks: `a_name_like_a_sentence`.
fn tests(text: &str) -> impl Iterator<Item = &str> {
    let is_test = |name: &&str| {
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            && name.matches('_').count() >= 4
            && !name.starts_with("drystone_")
            && !name.ends_with("_supported")
    };
    text.split('`').skip(1).step_by(2).filter(is_test)
}

#[test]
fn tests_quoted_in_documents_exist() {
    let root = root();
    let (mut documents, mut sources, mut scripts) = (Vec::new(), Vec::new(), Vec::new());
    files_under(&root.join("docs"), "md", &mut documents);
    files_under(&root, "rs", &mut sources);
    files_under(&root, "py", &mut scripts);
    let code: String = sources.iter().chain(&scripts).map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut missing = Vec::new();
    for document in &documents {
        let text = fs::read_to_string(document).unwrap();
        let prose: String = text.split("```").step_by(2).collect();
        let of_tests = tests(&prose).filter(|name| !code.contains(&format!(" {name}(")));
        missing.extend(of_tests.map(|name| format!("{}: `{name}`", document.display())));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
