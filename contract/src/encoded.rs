//! A contract as bytes.

use std::{borrow::Cow, fmt, fs, io, path::Path};

/// The packages of Drystone itself. No other contract can offer a service there.
const PLATFORM: &str = "drystone.";

/// Packages whose services come in as imports of a contract and are not part of what it offers.
const FOREIGN: [&str; 3] = ["google.", "grpc.", "buf."];

/// The largest file that is read as a contract: a hundred times the size of ours.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// An encoded `google.protobuf.FileDescriptorSet`, with its imports and with custom options intact.
#[derive(Clone)]
pub struct EncodedContract {
    name: Cow<'static, str>,
    descriptor_set: Cow<'static, [u8]>,
    is_platform: bool,
}

/// A contract file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContractFileError {
    /// The file is missing, or may not be read.
    #[error("the contract file {path} cannot be read: {source}; name a descriptor set that this user may read")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any contract.
    #[error("the contract file {0} is larger than {MAX_FILE_BYTES} bytes; it is not a descriptor set of one service")]
    TooLarge(String),
}

impl EncodedContract {
    /// A contract that is compiled into a program. `drystone-build` writes the call.
    #[must_use]
    pub const fn embedded(name: &'static str, descriptor_set: &'static [u8]) -> Self {
        Self { name: Cow::Borrowed(name), descriptor_set: Cow::Borrowed(descriptor_set), is_platform: false }
    }

    /// The contract of Drystone itself, which alone can offer services in packages `drystone.*`.
    #[must_use]
    pub const fn platform(name: &'static str, descriptor_set: &'static [u8]) -> Self {
        Self { name: Cow::Borrowed(name), descriptor_set: Cow::Borrowed(descriptor_set), is_platform: true }
    }

    /// A contract of these bytes; `name` is what errors call it.
    #[must_use]
    pub fn from_bytes(name: impl Into<String>, descriptor_set: impl Into<Vec<u8>>) -> Self {
        Self { name: Cow::Owned(name.into()), descriptor_set: Cow::Owned(descriptor_set.into()), is_platform: false }
    }

    /// Reads a contract from a file, as `protoc --include_imports --descriptor_set_out=FILE` writes it.
    ///
    /// # Errors
    /// [`ContractFileError`], which names the file.
    pub fn read(path: &Path) -> Result<Self, ContractFileError> {
        let name = path.display().to_string();
        let unreadable = |source| ContractFileError::Unreadable { path: name.clone(), source };
        if fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
            return Err(ContractFileError::TooLarge(name));
        }
        let bytes = fs::read(path).map_err(unreadable)?;
        Ok(Self::from_bytes(name, bytes))
    }

    /// What errors call it: a package or a file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The encoded `FileDescriptorSet`.
    #[must_use]
    pub fn descriptor_set(&self) -> &[u8] {
        &self.descriptor_set
    }

    /// The same, if it is compiled in.
    pub(crate) fn static_descriptor_set(&self) -> Option<&'static [u8]> {
        match self.descriptor_set {
            Cow::Borrowed(set) => Some(set),
            Cow::Owned(_) => None,
        }
    }

    /// Whether a service of this package is offered by the contract, rather than imported into it.
    pub(crate) fn offers(&self, package: &str) -> bool {
        let is_in = |prefix: &str| package.starts_with(prefix) || package == &prefix[..prefix.len() - 1];
        if self.is_platform { is_in(PLATFORM) } else { !is_in(PLATFORM) && !FOREIGN.into_iter().any(is_in) }
    }
}

impl fmt::Debug for EncodedContract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedContract")
            .field("name", &self.name)
            .field("bytes", &self.descriptor_set.len())
            .finish_non_exhaustive()
    }
}
