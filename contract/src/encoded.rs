//! Encoded contracts.

use std::{borrow::Cow, fmt, fs, io, path::Path};

/// The prefix of Drystone's packages. Other contracts cannot offer services in them.
const PLATFORM_PACKAGES: &str = "drystone.";

/// The prefixes of third-party packages, whose services a contract imports and does not offer.
const THIRD_PARTY_PACKAGES: [&str; 3] = ["google.", "grpc.", "buf."];

/// The maximum size of a contract file: a hundred times that of Drystone's contract.
const MAX_FILE_SIZE: u64 = 16 * 1024 * 1024;

/// An encoded `google.protobuf.FileDescriptorSet`, with its imports and with custom options intact.
#[derive(Clone)]
pub struct EncodedContract {
    name: Cow<'static, str>,
    descriptor_set: Cow<'static, [u8]>,
    origin: Origin,
}

/// Which services of a descriptor set a contract offers, rather than importing them. None offers those of third parties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Those in packages `drystone.*`.
    Platform,
    /// All others.
    Team,
    /// All: an export has several contracts in one file.
    Export,
}

/// A contract file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContractFileError {
    /// The file is missing or not readable.
    #[error("the contract file {path} cannot be read: {source}; name a descriptor set that this user can read")]
    Unreadable {
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The file exceeds the maximum size.
    #[error("the contract file {0} is larger than {MAX_FILE_SIZE} bytes; it is not a descriptor set of one service")]
    TooLarge(String),
}

impl EncodedContract {
    /// A contract embedded in a binary. `drystone-build` generates the call.
    #[must_use]
    pub const fn embedded(name: &'static str, descriptor_set: &'static [u8]) -> Self {
        Self { name: Cow::Borrowed(name), descriptor_set: Cow::Borrowed(descriptor_set), origin: Origin::Team }
    }

    /// The contract of Drystone itself, the only one that can offer services in packages `drystone.*`.
    #[must_use]
    pub const fn platform(name: &'static str, descriptor_set: &'static [u8]) -> Self {
        Self { name: Cow::Borrowed(name), descriptor_set: Cow::Borrowed(descriptor_set), origin: Origin::Platform }
    }

    /// A contract with these bytes, and with this name in error messages.
    #[must_use]
    pub fn from_bytes(name: impl Into<String>, descriptor_set: impl Into<Vec<u8>>) -> Self {
        Self { name: Cow::Owned(name.into()), descriptor_set: Cow::Owned(descriptor_set.into()), origin: Origin::Team }
    }

    /// Reads a contract from a file, the output of `protoc --include_imports --descriptor_set_out=FILE`.
    ///
    /// # Errors
    /// [`ContractFileError`], which names the file.
    pub fn read(path: &Path) -> Result<Self, ContractFileError> {
        let name = path.display().to_string();
        let unreadable = |source| ContractFileError::Unreadable { path: name.clone(), source };
        if fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_SIZE {
            return Err(ContractFileError::TooLarge(name));
        }
        let bytes = fs::read(path).map_err(unreadable)?;
        Ok(Self::from_bytes(name, bytes))
    }

    /// The same bytes as an export of several contracts (`drystone contract export`), Drystone's own included. It is for comparing
    /// contracts: no process serves one.
    #[must_use]
    pub fn exported(self) -> Self {
        Self { origin: Origin::Export, ..self }
    }

    /// The name in error messages: a package or a file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The encoded `FileDescriptorSet`.
    #[must_use]
    pub fn descriptor_set(&self) -> &[u8] {
        &self.descriptor_set
    }

    /// The encoded `FileDescriptorSet` if it is embedded.
    pub(crate) fn static_descriptor_set(&self) -> Option<&'static [u8]> {
        match self.descriptor_set {
            Cow::Borrowed(set) => Some(set),
            Cow::Owned(_) => None,
        }
    }

    /// Whether the contract offers the services of this package, rather than importing them.
    pub(crate) fn offers(&self, package: &str) -> bool {
        let is_in = |prefix: &str| package.starts_with(prefix) || package == &prefix[..prefix.len() - 1];
        match self.origin {
            Origin::Platform => is_in(PLATFORM_PACKAGES),
            Origin::Team => !is_in(PLATFORM_PACKAGES) && !THIRD_PARTY_PACKAGES.into_iter().any(is_in),
            Origin::Export => !THIRD_PARTY_PACKAGES.into_iter().any(is_in),
        }
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
