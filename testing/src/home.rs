//! The directory that a mesh lives in, which can outlast the mesh.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::process::keeps_scratch;

/// A temporary directory with the data, the log and the ready file of a mesh. It is removed at the end, unless
/// `DRYSTONE_TEST_KEEP` is set in the environment.
#[derive(Debug)]
pub struct Home(TempDir);

impl Home {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        let mut directory = tempfile::Builder::new().prefix("drystone-test-").tempdir().expect("it can be made");
        if keeps_scratch() {
            directory.disable_cleanup(true);
            eprintln!("kept: {}", directory.path().display());
        }
        Self(directory)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The log of all meshes that have lived here.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// Writes a file, and says where it is.
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
