//! Extracts shell commands from the README and other documents, so that the tests run the documented commands.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::binary;

/// The shell commands between `<!-- NAME -->` and `<!-- /NAME -->` in README.md.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn section(name: &str) -> String {
    section_of("README.md", name)
}

/// The shell commands of a section of another document.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn section_of(page: &str, name: &str) -> String {
    let path = binary::repository().join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let between = text
        .split_once(&format!("<!-- {name} -->"))
        .and_then(|(_, rest)| rest.split_once(&format!("<!-- /{name} -->")))
        .unwrap_or_else(|| panic!("{page} has no section between `<!-- {name} -->` and `<!-- /{name} -->`"));
    let code = between.0.split_once("```sh\n").and_then(|(_, rest)| rest.split_once("\n```"));
    code.unwrap_or_else(|| panic!("the section `{name}` of {page} has no block of shell commands")).0.to_owned()
}

/// The commands of a script: without comments and empty lines, continued lines joined.
#[must_use]
pub fn commands(script: &str) -> Vec<String> {
    let joined = script.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Runs a script in `directory`, with `drystone` and the tools that `make setup` installs on the `PATH`.
///
/// # Panics
/// If there is no shell.
#[must_use]
pub fn run(script: &str, directory: &Path) -> Output {
    run_with(script, directory, [])
}

/// Runs a script like [`run`], with additional environment variables.
///
/// # Panics
/// If there is no shell.
#[must_use]
pub fn run_with(script: &str, directory: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Output {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).current_dir(directory).envs(environment).env("PATH", search_path());
    shell.output().unwrap_or_else(|error| panic!("`sh` cannot be run: {error}"))
}

/// An executable of the virtual environment that `make setup` creates.
///
/// # Panics
/// If it is missing.
pub fn tool(name: &str) -> PathBuf {
    let path = tool_directory().join(name);
    assert!(path.is_file(), "{} is missing: run `make setup` first", path.display());
    path
}

fn tool_directory() -> PathBuf {
    binary::repository().join("target/venv/bin")
}

fn search_path() -> OsString {
    let program = binary::drystone();
    let directories = [tool_directory(), program.parent().expect("the binary is in a directory").to_owned()];
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(directories.into_iter().chain(env::split_paths(&path))).expect("the paths can be joined")
}

/// The directory with the Python code that the commands of the section `python-client` have generated.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn generated_python(directory: &Path) -> PathBuf {
    let generated = Path::new("drystone/auth/v1/auth_pb2_grpc.py");
    let subdirectories = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found = subdirectories.chain([directory.to_owned()]).filter(|path| path.join(generated).is_file());
    found.next().unwrap_or_else(|| panic!("the commands have not generated {}", generated.display()))
}
