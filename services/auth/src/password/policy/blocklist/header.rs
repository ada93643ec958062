//! The header of a blocklist, and the bounds of all that it says.

use aws_lc_rs::digest;

use super::fuse_filter::Geometry;

pub(super) const HEADER_LENGTH: usize = 64;

const CHECKSUM_OFFSET: usize = 32;
const MAGIC: &[u8; 8] = b"DRYPWBL\n";
const VERSION: u32 = 1;

/// 65,536 shards of a million keys.
const MAX_SHARD_BITS: u32 = 16;

/// Why a file is not a usable blocklist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Another kind of file, such as the text that a blocklist is built from.
    #[error("it is not a password blocklist; build one from a list of passwords or of SHA-1 hashes")]
    NotABlocklist,
    /// Made by another release.
    #[error("it has the format version {found}, and this release reads version {VERSION}; build it again")]
    Version {
        /// The version of the file.
        found: u32,
    },
    /// Bytes of the header have changed.
    #[error("its header is corrupt; copy the file again, or build it again")]
    Header,
    /// The file is truncated, or something was appended.
    #[error("it has {found} bytes instead of {expected}; copy the file again, or build it again")]
    Length {
        /// The length of the file.
        found: u64,
        /// The length that the header requires.
        expected: u64,
    },
}

/// The header. Its values are within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub shard_bits: u32,
    pub entries: u64,
    pub geometry: Geometry,
}

impl Header {
    /// Decodes the beginning of a file of this length.
    pub(super) fn decode(start: &[u8], length: u64) -> Result<Self, FormatError> {
        if !start.starts_with(MAGIC) {
            return Err(FormatError::NotABlocklist);
        }
        let Some(header) = start.first_chunk::<HEADER_LENGTH>() else {
            return Err(FormatError::Length { found: length, expected: HEADER_LENGTH as u64 });
        };
        let version = u32_at(header, 8);
        if version != VERSION {
            return Err(FormatError::Version { found: version });
        }
        let (fields, checksum) = header.split_at(CHECKSUM_OFFSET);
        if checksum != sha256(fields).as_ref() {
            return Err(FormatError::Header);
        }
        let entries = u64::from(u32_at(header, 16)) | u64::from(u32_at(header, 20)) << 32;
        let geometry = Geometry { segment_length: u32_at(header, 24), segment_count: u32_at(header, 28) };
        let header = Self { shard_bits: u32_at(header, 12), entries, geometry };
        if !header.is_valid() {
            return Err(FormatError::Header);
        }
        if length != header.file_length() {
            return Err(FormatError::Length { found: length, expected: header.file_length() });
        }
        Ok(header)
    }

    pub(super) fn encode(self) -> [u8; HEADER_LENGTH] {
        let mut header = [0; HEADER_LENGTH];
        let (fields, checksum) = header.split_at_mut(CHECKSUM_OFFSET);
        fields[..8].copy_from_slice(MAGIC);
        fields[8..12].copy_from_slice(&VERSION.to_le_bytes());
        fields[12..16].copy_from_slice(&self.shard_bits.to_le_bytes());
        fields[16..24].copy_from_slice(&self.entries.to_le_bytes());
        fields[24..28].copy_from_slice(&self.geometry.segment_length.to_le_bytes());
        fields[28..].copy_from_slice(&self.geometry.segment_count.to_le_bytes());
        checksum.copy_from_slice(sha256(fields).as_ref());
        header
    }

    /// Whether all values are within bounds, so that no offset overflows.
    pub(super) fn is_valid(self) -> bool {
        self.shard_bits <= MAX_SHARD_BITS
            && self.geometry.is_valid()
            && (1..=u64::from(self.geometry.table_length()) << self.shard_bits).contains(&self.entries)
    }

    /// The number of a key's shard: its first bits.
    pub(super) fn shard_of(self, key: u64) -> u64 {
        key.checked_shr(u64::BITS - self.shard_bits).unwrap_or(0)
    }

    /// The offset in the file of a key's shard.
    pub(super) fn shard_offset(self, key: u64) -> u64 {
        HEADER_LENGTH as u64 + self.shard_of(key) * self.shard_length()
    }

    fn shard_length(self) -> u64 {
        8 + 2 * u64::from(self.geometry.table_length())
    }

    /// The length of the file.
    pub(super) fn file_length(self) -> u64 {
        HEADER_LENGTH as u64 + (self.shard_length() << self.shard_bits)
    }
}

fn u32_at(header: &[u8; HEADER_LENGTH], offset: usize) -> u32 {
    header.get(offset..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}
