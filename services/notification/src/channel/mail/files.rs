//! Mails as files, for development: where no mail server is configured, a person reads them there.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::channel::SendError;

/// How many mails are kept; the oldest are removed.
const MAX_FILES: usize = 1000;

/// A folder of mails: a file for each, whose names are in the order of time.
#[derive(Debug, Clone)]
pub(super) struct MailFolder(PathBuf);

impl MailFolder {
    /// Creates the folder, accessible to its owner only.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(super) fn open(path: PathBuf) -> Result<Self, String> {
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| {
            format!(
                "no mail server is configured, and mails cannot be written to {}: {error}; set notification.smtp.host, or make the \
                 folder writable",
                path.display()
            )
        })?;
        Ok(Self(path))
    }

    /// Writes a mail. Writing it again replaces it.
    pub(super) async fn write(&self, id: Uuid, mail: Vec<u8>) -> Result<(), SendError> {
        let folder = self.0.clone();
        let written = spawn_blocking(move || write(&folder, id, &mail)).await;
        let written = written.map_err(|error| SendError::Unreachable(error.to_string()))?;
        written.map_err(|error| {
            SendError::Unreachable(format!("the mail cannot be written to {}: {error}", self.0.display()))
        })
    }
}

fn write(folder: &Path, id: Uuid, mail: &[u8]) -> io::Result<()> {
    let path = folder.join(format!("{id}.eml"));
    let unfinished = folder.join(format!("{id}.tmp"));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(mail)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    remove_oldest(folder)
}

fn remove_oldest(folder: &Path) -> io::Result<()> {
    let mut mails: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
        .collect();
    if mails.len() > MAX_FILES {
        mails.sort_unstable();
        for path in &mails[..mails.len() - MAX_FILES] {
            match fs::remove_file(path) {
                // Another mail that is written at once has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}
