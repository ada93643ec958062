//! Lists of known passwords as static filters: a file of 2.3 bytes a password, of which a lookup reads a few bytes.
//!
//! A filter has no false negatives. Of other passwords, one in 65,536 is taken for one of the list, or one in 32,768 if it
//! has capital letters, since it is looked up in lower case too.
//!
//! # File format
//!
//! All numbers are little-endian. The header has 64 bytes:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | magic, `DRYPWBL\n` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | the number of shards, as a power of two |
//! | 16 | 8 | the number of keys |
//! | 24 | 4 | segment length |
//! | 28 | 4 | segment count |
//! | 32 | 32 | SHA-256 of the bytes before |
//!
//! The shards follow, all of the same length: a seed of 8 bytes, then fingerprints of 2 bytes. A shard is a
//! binary fuse filter of the keys that begin with its number. A key is the first 8 bytes, big-endian, of the SHA-1
//! of a password in UTF-8.

mod build;
mod fuse_filter;
mod header;

use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

pub use self::{
    build::{BuildError, LineKind, Summary, build},
    header::FormatError,
};
use self::{
    fuse_filter::{fingerprint, hash},
    header::{HEADER_LENGTH, Header},
};

/// Why a blocklist cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read.
    #[error("the password blocklist {} cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not a usable blocklist.
    #[error("the password blocklist {} cannot be used: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: FormatError,
    },
}

/// A list of known passwords. Only its header is in memory.
pub struct Blocklist {
    bytes: Bytes,
    header: Header,
}

enum Bytes {
    Static(&'static [u8]),
    File(File),
}

impl Blocklist {
    /// Opens a file and checks its header and length, not its fingerprints. The file must not be changed in place:
    /// replace it, as [`build`](build()) does.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io_error)?;
        let length = file.metadata().map_err(io_error)?.len();
        Self::new(Bytes::File(file), length).map_err(io_error)?.map_err(|source| {
            let path = path.to_owned();
            OpenError::Format { path, source }
        })
    }

    /// A list that is part of the program.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, OpenError> {
        let path = || PathBuf::from("(built in)");
        Self::new(Bytes::Static(bytes), bytes.len() as u64)
            .map_err(|source| OpenError::Io { path: path(), source })?
            .map_err(|source| OpenError::Format { path: path(), source })
    }

    fn new(bytes: Bytes, length: u64) -> io::Result<Result<Self, FormatError>> {
        let mut start = vec![0; usize::try_from(length).map_or(HEADER_LENGTH, |length| length.min(HEADER_LENGTH))];
        bytes.read(&mut start, 0)?;
        Ok(Header::decode(&start, length).map(|header| Self { bytes, header }))
    }

    /// Whether the password, as it is or in lower case, is in the list. Expects NFC.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn contains(&self, password: &str) -> io::Result<bool> {
        let key = key_of(password);
        let lower_case_key = key_of(&to_lower_case(password));
        Ok(self.contains_key(key)? || (lower_case_key != key && self.contains_key(lower_case_key)?))
    }

    /// The number of keys, some of which may be two forms of one password.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.header.entries
    }

    fn contains_key(&self, key: u64) -> io::Result<bool> {
        let shard = self.header.shard_offset(key);
        let mut seed = [0; 8];
        self.bytes.read(&mut seed, shard)?;
        let hash = hash(key, u64::from_le_bytes(seed));
        let mut xor = fingerprint(hash);
        for position in self.header.geometry.positions(hash) {
            let mut value = [0; 2];
            self.bytes.read(&mut value, shard + 8 + 2 * u64::from(position))?;
            xor ^= u16::from_le_bytes(value);
        }
        Ok(xor == 0)
    }
}

impl fmt::Debug for Blocklist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocklist").field("entries", &self.header.entries).finish_non_exhaustive()
    }
}

impl Bytes {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Static(bytes) => {
                let bytes = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)?.get(..buffer.len()));
                buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::File(file) => file.read_exact_at(buffer, offset),
        }
    }
}

/// The first 8 bytes of the SHA-1. Not for security: lists of leaked passwords are published as SHA-1.
fn key_of(password: &str) -> u64 {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    digest.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Lower case, in NFC.
fn to_lower_case(password: &str) -> Zeroizing<String> {
    Zeroizing::new(password.chars().flat_map(char::to_lowercase).nfc().collect())
}

#[cfg(test)]
mod tests;
