//! The file of a database: making it, and saying what is wrong with it.

use std::{fs, io, path::Path, path::PathBuf};

/// Why a database could not be opened. Each is one sentence that says what to do, its cause included.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or the file cannot be created or written.
    #[error("{} cannot be written ({cause}): make it writable for this user, or choose another data directory", path.display())]
    Unwritable {
        /// The directory or the file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// The schema was written by a newer release.
    #[error(
        "the database {} has schema version {found}, but this program knows only up to {known}: start the newer release \
         that wrote it, or restore a backup from before the upgrade",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version that it has.
        found: i64,
        /// The newest version that this program has.
        known: i64,
    },
    /// A step of the schema is not the one that was applied.
    #[error(
        "the database {} was made with another text of migration {version} ({name}): start the release that wrote it, or \
         restore a backup that fits this one",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The step's version.
        version: i64,
        /// The step's name, as this program has it.
        name: &'static str,
    },
    /// The file is no SQLite database, or damaged.
    #[error(
        "{} is damaged or no SQLite database ({cause}): restore it from a backup, or move it away to start with an empty one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: String,
    },
    /// Something else went wrong.
    #[error("the database {} cannot be opened ({cause}): see to the cause and start again", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: String,
    },
}

/// Makes the directory and the file where they are missing. SQLite gives its side files the mode of the main one.
pub(super) fn prepare(path: &Path) -> Result<(), OpenError> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        create_directory(directory).map_err(|error| unwritable(directory, &error))?;
    }
    create_file(path).map_err(|error| unwritable(path, &error))
}

/// What an error of SQLite at the opening of a file means.
pub(super) fn explain(path: &Path, error: &sqlx::Error) -> OpenError {
    const READONLY: i32 = 8;
    const CORRUPT: i32 = 11;
    const CANTOPEN: i32 = 14;
    const NOTADB: i32 = 26;

    let (path, cause) = (path.to_owned(), error.to_string());
    match primary_code(error) {
        Some(READONLY | CANTOPEN) => OpenError::Unwritable { path, cause },
        Some(CORRUPT | NOTADB) => OpenError::Damaged { path, cause },
        _ => OpenError::Failed { path, cause },
    }
}

/// SQLite's result code without its extension.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

fn unwritable(path: &Path, error: &io::Error) -> OpenError {
    OpenError::Unwritable { path: path.to_owned(), cause: error.to_string() }
}

#[cfg(unix)]
fn create_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn create_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

#[cfg(unix)]
fn create_file(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn create_file(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).map(drop)
}
