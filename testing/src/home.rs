//! The working directory of a mesh, which can outlive the mesh.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::process::keep_scratch;

/// A temporary directory with the data, the log and the ready file of a mesh. Removed on drop, unless
/// `DRYSTONE_TEST_KEEP` is set.
#[derive(Debug)]
pub struct Home(TempDir);

impl Home {
    /// Creates a directory.
    #[must_use]
    pub fn new() -> Self {
        let mut directory =
            tempfile::Builder::new().prefix("drystone-test-").tempdir().expect("the directory can be created");
        if keep_scratch() {
            directory.disable_cleanup(true);
            eprintln!("kept: {}", directory.path().display());
        }
        Self(directory)
    }

    /// The path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The log file of all meshes that ran here.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// Writes a file; returns its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{} cannot be written: {error}", path.display()));
        path
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}
