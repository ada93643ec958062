//! Reads and writes identity files: keys are private to their owner, and writes are atomic.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use uuid::Uuid;
use zeroize::Zeroizing;

/// Far more than a certificate chain or bundle needs; a wrong path must not exhaust the memory.
const MAX_FILE_SIZE: u64 = 4 << 20;

/// The mode of certificates.
pub(super) const PUBLIC: u32 = 0o644;
/// The mode of private keys.
pub(super) const SECRET: u32 = 0o600;

/// Reads a whole file.
pub(super) fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    read_from(fs::File::open(path)?)
}

/// Reads the file of a private key; `Ok(None)` if other users than its owner have access.
pub(super) fn read_secret(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    if !is_private(metadata.permissions().mode(), metadata.uid()) {
        return Ok(None);
    }
    read_from(file).map(Some)
}

/// Whether only the owner has access. A group may read a file that root owns, as with PostgreSQL's keys: a secret that
/// Kubernetes mounts for a process that is not root is readable in no other way.
fn is_private(mode: u32, owner: u32) -> bool {
    const ROOT: u32 = 0;
    let allowed = if owner == ROOT { 0o740 } else { 0o700 };
    mode & 0o777 & !allowed == 0
}

fn read_from(file: fs::File) -> io::Result<Zeroizing<Vec<u8>>> {
    // Allocated once: a buffer that grows leaves copies of a key in memory.
    let size = file.metadata()?.len().min(MAX_FILE_SIZE);
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1));
    file.take(MAX_FILE_SIZE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_SIZE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is over 4 MiB"));
    }
    Ok(content)
}

/// Writes a file atomically: a reader sees the old content or the new, and never another mode.
pub(super) fn write(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", Uuid::now_v7().simple()));
    let written = write_temporary(&temporary, mode, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_temporary(temporary: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
    // The umask may have cleared bits.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::is_private;

    #[test]
    fn a_key_is_for_its_owner_and_for_the_group_of_a_mount_by_root() {
        for mode in [0o100_600, 0o100_400, 0o100_700] {
            assert!(is_private(mode, 1000) && is_private(mode, 0), "{mode:o}");
        }
        for mode in [0o100_640, 0o100_440] {
            assert!(is_private(mode, 0) && !is_private(mode, 1000), "{mode:o}");
        }
        for mode in [0o100_660, 0o100_604, 0o100_644, 0o100_444, 0o100_610, 0o100_602] {
            assert!(!is_private(mode, 0) && !is_private(mode, 1000), "{mode:o}");
        }
    }
}
