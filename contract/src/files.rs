//! The files of an encoded descriptor set, as bytes: a round trip through `prost_types` would drop custom options.

use prost_reflect::prost::{
    DecodeError,
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field},
};

/// `FileDescriptorSet.file`
const FILE: u32 = 1;
/// `FileDescriptorProto.name`
const NAME: u32 = 1;
/// `FileDescriptorProto.source_code_info`
const SOURCE_CODE_INFO: u32 = 9;

/// One encoded `google.protobuf.FileDescriptorProto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File<'a> {
    /// The name, as in imports.
    pub name: &'a str,
    /// The encoded message.
    pub bytes: &'a [u8],
}

/// The files of a descriptor set, in order: each after its imports.
///
/// # Errors
/// The bytes are not a descriptor set.
pub fn files(mut set: &[u8]) -> Result<Vec<File<'_>>, DecodeError> {
    let mut files = Vec::new();
    while set.has_remaining() {
        let (tag, field) = next_field(&mut set)?;
        if tag == FILE {
            let bytes = content(field)?;
            files.push(File { name: name(bytes)?, bytes });
        }
    }
    Ok(files)
}

/// Appends a file to an encoded descriptor set.
pub fn append(set: &mut Vec<u8>, file: &[u8]) {
    encode_key(FILE, WireType::LengthDelimited, set);
    encode_varint(file.len() as u64, set);
    set.extend_from_slice(file);
}

/// The file without comments and source positions, which are most of its size.
///
/// # Errors
/// The bytes are not a message.
pub fn without_source_info(mut file: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut kept = Vec::with_capacity(file.len());
    while file.has_remaining() {
        let (tag, field) = next_field(&mut file)?;
        if tag != SOURCE_CODE_INFO {
            kept.extend_from_slice(field);
        }
    }
    Ok(kept)
}

fn name(mut file: &[u8]) -> Result<&str, DecodeError> {
    while file.has_remaining() {
        let (tag, field) = next_field(&mut file)?;
        if tag == NAME {
            return Ok(std::str::from_utf8(content(field)?).unwrap_or_default());
        }
    }
    Ok("")
}

/// Splits off the next field: its number and its bytes, key included.
fn next_field<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), DecodeError> {
    let start = *rest;
    let (tag, wire_type) = decode_key(rest)?;
    skip_field(wire_type, tag, rest, DecodeContext::default())?;
    Ok((tag, &start[..start.len() - rest.len()]))
}

/// The content of a length-delimited field.
fn content(mut field: &[u8]) -> Result<&[u8], DecodeError> {
    decode_key(&mut field)?;
    decode_varint(&mut field)?;
    Ok(field)
}
