//! Reading and writing the files of an identity: secrets stay with their owner, and nobody reads half a file.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use uuid::Uuid;
use zeroize::Zeroizing;

/// More than any certificate chain or bundle needs; a wrong path must not fill the memory.
const MAX_BYTES: u64 = 4 << 20;

/// The mode of what anybody may read.
pub(super) const PUBLIC: u32 = 0o644;
/// The mode of a private key.
pub(super) const SECRET: u32 = 0o600;

/// The whole of a file.
pub(super) fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    read_from(fs::File::open(path)?)
}

/// The whole of a private key's file; `Ok(None)` if others than its owner may reach it.
pub(super) fn read_secret(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = fs::File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Ok(None);
    }
    read_from(file).map(Some)
}

fn read_from(file: fs::File) -> io::Result<Zeroizing<Vec<u8>>> {
    // The whole size at once: a buffer that grows leaves copies of a key behind.
    let size = file.metadata()?.len().min(MAX_BYTES);
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1));
    file.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is over 4 MiB"));
    }
    Ok(content)
}

/// Puts a file in place as a whole: a reader sees the old content or the new, and never another mode.
pub(super) fn write(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.{}", Uuid::now_v7().simple()));
    let written = write_draft(&draft, mode, content).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The failure to report is the first one.
        let _ = fs::remove_file(&draft);
    }
    written
}

fn write_draft(draft: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    // The umask may have taken bits away.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}
