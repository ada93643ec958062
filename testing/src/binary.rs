//! The path of the program under test.

use std::{env, path::PathBuf};

/// The `drystone` binary: the path in `DRYSTONE_BIN`, or the binary that Cargo built in the profile directory of this
/// test.
///
/// # Panics
/// If there is none; the message says how to build it.
#[must_use]
pub fn drystone() -> PathBuf {
    if let Some(named) = env::var_os("DRYSTONE_BIN") {
        let path = PathBuf::from(named);
        assert!(path.is_file(), "DRYSTONE_BIN is {}, which is not a file", path.display());
        return path;
    }
    let built = profile_directory().join(format!("drystone{}", env::consts::EXE_SUFFIX));
    assert!(built.is_file(), "{} is missing: run `cargo build -p drystone-cli` first", built.display());
    built
}

/// `target/PROFILE`, where this test is `target/PROFILE/deps/TEST`.
#[must_use]
pub fn profile_directory() -> PathBuf {
    let test = env::current_exe().expect("the test's path is known");
    let deps = test.parent().expect("an executable is in a directory");
    if deps.ends_with("deps") { deps.parent().unwrap_or(deps).to_owned() } else { deps.to_owned() }
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("testing/ is in the repository").to_owned()
}
