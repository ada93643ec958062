//! The index of files for reflection.
//!
//! It has the encoded files with their names, dependencies and extensions. A symbol is searched in the files of its package,
//! which are decoded for each lookup: reflection is rare, and an index of symbols would cost memory in every process.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use bytes::{Buf, Bytes};
use prost::{
    DecodeError, Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use super::descriptor::{Extension, FileDescriptor, SymbolKind};

/// `FileDescriptorSet.file`
const FILE: u32 = 1;

/// The files of all contracts.
///
/// Contracts can have files of the same name, such as copies of well-known types. A name finds the first file; additional
/// declarations of later ones are found by symbol and by extension.
#[derive(Debug)]
pub(in crate::server) struct DescriptorIndex {
    files: Vec<IndexedFile>,
    by_name: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct IndexedFile {
    /// The descriptor set of the file.
    set: usize,
    name: Arc<str>,
    package: String,
    dependencies: Vec<String>,
    extensions: BTreeSet<Extension>,
    /// The encoded `FileDescriptorProto`.
    encoded: Bytes,
}

/// A descriptor set that cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("descriptor set {position} cannot be read: {source}")]
pub(in crate::server) struct InvalidDescriptorSet {
    /// Its position in the list, from 1.
    position: usize,
    source: DecodeError,
}

impl DescriptorIndex {
    /// Indexes the files of these encoded `FileDescriptorSet`s. It keeps slices of them, without copying.
    pub(in crate::server) fn new(sets: impl IntoIterator<Item = Bytes>) -> Result<Self, InvalidDescriptorSet> {
        let mut index = Self { files: Vec::new(), by_name: HashMap::new() };
        for (position, set) in (1..).zip(sets) {
            index.add(position, set).map_err(|source| InvalidDescriptorSet { position, source })?;
        }
        Ok(index)
    }

    fn add(&mut self, set: usize, mut rest: Bytes) -> Result<(), DecodeError> {
        while rest.has_remaining() {
            let (tag, wire_type) = decode_key(&mut rest)?;
            if tag != FILE || wire_type != WireType::LengthDelimited {
                skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
                continue;
            }
            let length = usize::try_from(decode_varint(&mut rest)?).unwrap_or(usize::MAX);
            // A truncated file fails to decode.
            let encoded = rest.split_to(length.min(rest.len()));
            let file = FileDescriptor::decode(if encoded.len() == length {
                encoded.clone()
            } else {
                Bytes::from_static(b"\x0a")
            })?;
            self.add_file(set, file, encoded);
        }
        Ok(())
    }

    fn add_file(&mut self, set: usize, file: FileDescriptor, encoded: Bytes) {
        let extensions = file.extensions();
        let FileDescriptor { name, package, dependencies, .. } = file;
        if let Some(&first) = self.by_name.get(name.as_str())
            && self.files[first].encoded == encoded
        {
            return;
        }
        let name: Arc<str> = name.into();
        self.by_name.entry(name.clone()).or_insert(self.files.len());
        self.files.push(IndexedFile { set, name, package, dependencies, extensions, encoded });
    }

    /// The file with this name.
    pub(super) fn file(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The file that declares the symbol of this full name: a service, method, message, field, oneof, enum, enum value
    /// or extension.
    pub(super) fn file_with_symbol(&self, symbol: &str) -> Option<usize> {
        self.declarations(symbol).map(|(file, _)| file).next()
    }

    /// The file that declares the extension of this number of a message.
    pub(super) fn file_with_extension(&self, message: &str, number: i32) -> Option<usize> {
        let is_it = |(extended, extension): &Extension| extended == message && *extension == number;
        self.files.iter().position(|file| file.extensions.iter().any(is_it))
    }

    /// The numbers of all extensions of a message, in order; `None` if there is no such message.
    pub(super) fn extension_numbers(&self, message: &str) -> Option<Vec<i32>> {
        let extensions = self.files.iter().flat_map(|file| &file.extensions);
        let numbers: BTreeSet<i32> =
            extensions.filter(|(extended, _)| extended == message).map(|(_, number)| *number).collect();
        let is_known = !numbers.is_empty() || self.declarations(message).any(|(_, kind)| kind == SymbolKind::Message);
        is_known.then(|| numbers.into_iter().collect())
    }

    /// A file and its transitive dependencies, except those already `sent`.
    pub(super) fn with_dependencies(&self, file: usize, sent: &mut HashSet<Arc<str>>) -> Vec<Bytes> {
        let mut found = Vec::new();
        let mut due = VecDeque::from([file]);
        while let Some(file) = due.pop_front() {
            let IndexedFile { set, name, dependencies, encoded, .. } = &self.files[file];
            // The requested file is always sent.
            if sent.insert(name.clone()) || found.is_empty() {
                found.push(encoded.clone());
                due.extend(dependencies.iter().filter_map(|dependency| self.dependency(*set, dependency)));
            }
        }
        found
    }

    /// The file with this name in the same set, or else the first.
    fn dependency(&self, set: usize, name: &str) -> Option<usize> {
        let own = self.files.iter().position(|file| file.set == set && *file.name == *name);
        own.or_else(|| self.file(name))
    }

    fn declarations(&self, symbol: &str) -> impl Iterator<Item = (usize, SymbolKind)> {
        let in_package = move |(_, file): &(usize, &IndexedFile)| symbol.starts_with(file.package.as_str());
        self.files.iter().enumerate().filter(in_package).filter_map(move |(position, file)| {
            let kind = FileDescriptor::decode(file.encoded.clone()).ok()?.kind_of(symbol)?;
            Some((position, kind))
        })
    }
}

#[cfg(test)]
mod tests;
