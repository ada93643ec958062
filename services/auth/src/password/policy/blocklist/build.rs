//! Builds a blocklist from a text file.

use std::{
    fs::Permissions,
    io::{self, BufRead, BufWriter, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use tempfile::NamedTempFile;
use unicode_normalization::UnicodeNormalization;

use super::{
    fuse_filter::{self, Geometry, MAX_KEYS},
    header::Header,
    key_of, to_lower_case,
};
use crate::password::policy::{MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH};

/// The maximum number of keys of a shard, on average.
const SHARD_KEYS: usize = 1 << 20;

/// The maximum length of a line, in bytes. No password that is accepted is longer.
const MAX_LINE_LENGTH: usize = 4 * MAX_PASSWORD_LENGTH;

/// What the lines of the input are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// A password in UTF-8.
    Password,
    /// A SHA-1 of 40 hexadecimal digits, with an optional `:COUNT`, as in the lists of Have I Been Pwned.
    Sha1,
}

/// What a list was built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// What the lines were.
    pub kind: LineKind,
    /// The lines that are not empty.
    pub lines: u64,
    /// Lines that are not UTF-8.
    pub not_utf8: u64,
    /// Passwords that are refused anyway, since they are too short or too long.
    pub out_of_length: u64,
    /// The keys in the list: without duplicates, but two for a password that has capital letters.
    pub entries: u64,
}

/// Why a list cannot be built. Never says what a line has.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The input cannot be read.
    #[error("the input cannot be read")]
    Read(#[source] io::Error),
    /// The output cannot be written.
    #[error("the blocklist cannot be written")]
    Write(#[source] io::Error),
    /// A line is not of the kind of the others.
    #[error("line {line} is not a SHA-1 of 40 hexadecimal digits, like the lines before; all must be of one kind")]
    NotSha1 {
        /// The number of the line, from 1.
        line: u64,
    },
    /// Nothing to put into the list.
    #[error("the input has no passwords of {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters")]
    Empty,
    /// Too many keys begin alike, or there are too many.
    #[error("the input has too many entries, or hashes that are not SHA-1")]
    Uneven,
}

/// Builds a list of the passwords or hashes in `input`, one a line, and replaces `output` with it, mode 0644. `kind` is
/// detected from the first line if not given.
///
/// Needs 8 bytes of memory for each line (16 while the buffer grows) and 60 MiB. The same passwords give the same file.
///
/// # Errors
/// See [`BuildError`]. `output` is then as it was.
pub fn build(input: impl BufRead, output: &Path, kind: Option<LineKind>) -> Result<Summary, BuildError> {
    let (mut keys, mut summary) = read_keys(input, kind)?;
    keys.sort_unstable();
    keys.dedup();
    summary.entries = keys.len() as u64;
    write(&keys, output)?;
    Ok(summary)
}

fn read_keys(mut input: impl BufRead, kind: Option<LineKind>) -> Result<(Vec<u64>, Summary), BuildError> {
    let kind_of = |line: &[u8]| if parse_sha1(line).is_some() { LineKind::Sha1 } else { LineKind::Password };
    let (mut keys, mut line, mut number, mut detected) = (Vec::new(), Vec::new(), 0, kind);
    let mut summary = Summary { kind: LineKind::Password, lines: 0, not_utf8: 0, out_of_length: 0, entries: 0 };
    while read_line(&mut input, &mut line).map_err(BuildError::Read)? {
        number += 1;
        if line.is_empty() {
            continue;
        }
        summary.lines += 1;
        summary.kind = *detected.get_or_insert_with(|| kind_of(&line));
        if summary.kind == LineKind::Sha1 {
            keys.push(parse_sha1(&line).ok_or(BuildError::NotSha1 { line: number })?);
            continue;
        }
        let Ok(password) = str::from_utf8(&line) else {
            summary.not_utf8 += 1;
            continue;
        };
        let password: String = password.nfc().collect();
        if !(MIN_PASSWORD_LENGTH..=MAX_PASSWORD_LENGTH).contains(&password.chars().count()) {
            summary.out_of_length += 1;
            continue;
        }
        let (key, lower_case_key) = (key_of(&password), key_of(&to_lower_case(&password)));
        keys.push(key);
        if lower_case_key != key {
            keys.push(lower_case_key);
        }
    }
    if keys.is_empty() { Err(BuildError::Empty) } else { Ok((keys, summary)) }
}

/// Reads a line without its end. Cuts one that is too long, so that it is still too long but bounded. False at the end.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    input.take(MAX_LINE_LENGTH as u64 + 2).read_until(b'\n', line)?;
    let is_end = line.is_empty();
    if line.pop_if(|last| *last == b'\n').is_some() {
        line.pop_if(|last| *last == b'\r');
    } else if line.len() > MAX_LINE_LENGTH {
        input.skip_until(b'\n')?;
        // Cut within a character, it would not be UTF-8.
        line.fill(b'.');
    }
    Ok(!is_end)
}

/// The first 8 bytes of a SHA-1 in hexadecimal, optionally followed by `:COUNT`.
fn parse_sha1(line: &[u8]) -> Option<u64> {
    let (digits, count) = line.split_at_checked(40)?;
    let is_count = match count {
        [] => true,
        [b':', count @ ..] => !count.is_empty() && count.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let digits = str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u64::from_str_radix(digits.get(..16)?, 16).ok().filter(|_| is_count)
}

fn write(keys: &[u64], output: &Path) -> Result<(), BuildError> {
    let shards: Vec<&[u64]> = split_into_shards(keys);
    let longest = shards.iter().map(|shard| shard.len()).max().unwrap_or(0);
    let geometry = Geometry::for_keys(longest);
    let header = Header { shard_bits: shards.len().ilog2(), entries: keys.len() as u64, geometry };
    if longest > MAX_KEYS || !header.is_valid() {
        return Err(BuildError::Uneven);
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = NamedTempFile::new_in(folder).map_err(BuildError::Write)?;
    let mut writer = BufWriter::new(file);
    writer.write_all(&header.encode()).map_err(BuildError::Write)?;
    for shard in shards {
        let (seed, table) = fuse_filter::construct(shard, geometry).ok_or(BuildError::Uneven)?;
        write_shard(&mut writer, seed, &table).map_err(BuildError::Write)?;
    }
    let file = writer.into_inner().map_err(|error| BuildError::Write(error.into_error()))?;
    publish(file, output).map_err(BuildError::Write)
}

/// Splits sorted keys by their first bits into shards of [`SHARD_KEYS`] or less, on average.
fn split_into_shards(mut keys: &[u64]) -> Vec<&[u64]> {
    let count = keys.len().div_ceil(SHARD_KEYS).next_power_of_two() as u64;
    let mut shards = Vec::new();
    for shard in 0..count {
        let end = keys.partition_point(|key| (u128::from(*key) * u128::from(count)) >> 64 <= u128::from(shard));
        let (first, rest) = keys.split_at(end);
        shards.push(first);
        keys = rest;
    }
    shards
}

fn write_shard(writer: &mut impl Write, seed: u64, table: &[u16]) -> io::Result<()> {
    writer.write_all(&seed.to_le_bytes())?;
    table.iter().try_for_each(|value| writer.write_all(&value.to_le_bytes()))
}

fn publish(file: NamedTempFile, output: &Path) -> io::Result<()> {
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(output)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::policy::blocklist::Blocklist;

    #[test]
    fn a_list_of_several_shards_has_all_entries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let mut keys: Vec<u64> = (0..1_100_000).map(|index| fuse_filter::hash(index, 1)).collect();
        keys.sort_unstable();
        write(&keys, &path).unwrap();
        let list = Blocklist::open(&path).unwrap();
        assert_eq!((list.entries(), list.header.shard_bits), (1_100_000, 1));
        assert!(keys.iter().step_by(7).all(|key| list.contains_key(*key).unwrap()));
        let others = (0..100_000).map(|index| fuse_filter::hash(index, 1 << 40));
        let false_positives = others.filter(|key| list.contains_key(*key).unwrap()).count();
        assert!(false_positives < 10, "{false_positives}");
    }

    #[test]
    fn keys_are_split_by_their_first_bits() {
        let keys: Vec<u64> = (0..=SHARD_KEYS as u64 * 2).map(|index| index << 42).collect();
        let shards = split_into_shards(&keys);
        assert_eq!(shards.len(), 4);
        assert_eq!(shards.concat(), keys);
        for (number, shard) in shards.iter().enumerate() {
            assert!(shard.iter().all(|key| key >> 62 == number as u64));
        }
    }

    #[test]
    fn hashes_that_begin_alike_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<u64> = (0..=MAX_KEYS as u64).collect();
        assert!(matches!(write(&keys, &folder.path().join("list")), Err(BuildError::Uneven)));
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
