//! Where the program under test is.

use std::{env, path::PathBuf};

/// The `drystone` binary: what `DRYSTONE_BIN` names, or the one that Cargo built beside this test.
///
/// # Panics
/// If there is none; the text says how to build it.
#[must_use]
pub fn drystone() -> PathBuf {
    if let Some(named) = env::var_os("DRYSTONE_BIN") {
        let path = PathBuf::from(named);
        assert!(path.is_file(), "DRYSTONE_BIN names {}, which is no file", path.display());
        return path;
    }
    let built = profile_directory().join(format!("drystone{}", env::consts::EXE_SUFFIX));
    assert!(built.is_file(), "{} is missing: run `cargo build -p drystone-cli` first", built.display());
    built
}

/// `target/PROFILE`, which this test was built into as `target/PROFILE/deps/TEST`.
#[must_use]
pub fn profile_directory() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    let deps = test.parent().expect("an executable lies in a directory");
    if deps.ends_with("deps") { deps.parent().unwrap_or(deps).to_owned() } else { deps.to_owned() }
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}
