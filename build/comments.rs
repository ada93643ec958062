//! Leaves out the comments of others' files, which make up most of a descriptor set and which nobody reads here.
//!
//! Works on the encoded bytes: a round trip through `prost_types` would drop custom options.

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

/// The same descriptor set, with comments in the files whose names start with `ours` alone.
///
/// # Errors
/// The bytes are no descriptor set.
pub fn only_of(ours: &str, mut set: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut kept = Vec::with_capacity(set.len());
    while set.has_remaining() {
        let (_, _, field) = next_field(&mut set)?;
        let (_, file) = content(field)?;
        let file = if is_named(ours, file)? { file.to_vec() } else { without(SOURCE_CODE_INFO, file)? };
        encode_key(FILE, WireType::LengthDelimited, &mut kept);
        encode_varint(file.len() as u64, &mut kept);
        kept.extend(file);
    }
    Ok(kept)
}

fn is_named(start: &str, mut file: &[u8]) -> Result<bool, DecodeError> {
    while file.has_remaining() {
        let (tag, _, field) = next_field(&mut file)?;
        if tag == NAME {
            return Ok(content(field)?.1.starts_with(start.as_bytes()));
        }
    }
    Ok(false)
}

fn without(unwanted: u32, mut message: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut kept = Vec::with_capacity(message.len());
    while message.has_remaining() {
        let (tag, _, field) = next_field(&mut message)?;
        if tag != unwanted {
            kept.extend_from_slice(field);
        }
    }
    Ok(kept)
}

/// Takes the next field off: its number, its wire type, and all its bytes, key included.
fn next_field<'a>(rest: &mut &'a [u8]) -> Result<(u32, WireType, &'a [u8]), DecodeError> {
    let start = *rest;
    let (tag, wire_type) = decode_key(rest)?;
    skip_field(wire_type, tag, rest, DecodeContext::default())?;
    Ok((tag, wire_type, &start[..start.len() - rest.len()]))
}

/// The number and the content of a length-delimited field.
fn content(mut field: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    let (tag, _) = decode_key(&mut field)?;
    decode_varint(&mut field)?;
    Ok((tag, field))
}
