//! What of CBOR authenticators may send: the canonical form of CTAP2, in which each length is definite and no key is twice.

use minicbor::{Decoder, data::Type};

/// How deep values may nest: extensions nest less.
const MAX_DEPTH: u32 = 4;

/// How many entries a map or list may have.
const MAX_ENTRIES: u64 = 64;

/// The number of entries of a map of definite length.
pub(crate) fn map(decoder: &mut Decoder<'_>) -> Option<u64> {
    decoder.map().ok()?.filter(|entries| *entries <= MAX_ENTRIES)
}

/// Skips a value, unless it nests too deep or has a part of indefinite length.
pub(crate) fn skip(decoder: &mut Decoder<'_>) -> Option<()> {
    skip_within(decoder, MAX_DEPTH)
}

fn skip_within(decoder: &mut Decoder<'_>, depth: u32) -> Option<()> {
    match decoder.datatype().ok()? {
        Type::Map | Type::Array if depth == 0 => None,
        Type::Map => {
            for _ in 0..map(decoder)? {
                skip_within(decoder, depth - 1)?;
                skip_within(decoder, depth - 1)?;
            }
            Some(())
        }
        Type::Array => {
            let entries = decoder.array().ok()?.filter(|entries| *entries <= MAX_ENTRIES)?;
            (0..entries).try_for_each(|_| skip_within(decoder, depth - 1))
        }
        Type::Bytes => decoder.bytes().ok().map(|_| ()),
        Type::String => decoder.str().ok().map(|_| ()),
        Type::Bool
        | Type::Null
        | Type::Undefined
        | Type::F16
        | Type::F32
        | Type::F64
        | Type::Simple
        | Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::Int => decoder.skip().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(bytes: &[u8]) -> Option<usize> {
        let mut decoder = Decoder::new(bytes);
        skip(&mut decoder)?;
        Some(decoder.position())
    }

    #[test]
    fn values_of_definite_length_are_skipped() {
        for bytes in [
            &[0x00][..],
            &[0x20],
            &[0xf5],
            &[0x43, 1, 2, 3],
            &[0x62, b'h', b'i'],
            &[0xa1, 0x01, 0x82, 0x02, 0xa0],
            &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(skipped(bytes), Some(bytes.len()), "{bytes:x?}");
        }
    }

    #[test]
    fn what_authenticators_may_not_send_is_refused() {
        for bytes in [
            &[][..],
            &[0x43, 1, 2],
            // Of indefinite length: a map, a list, bytes and text.
            &[0xbf, 0xff],
            &[0x9f, 0xff],
            &[0x5f, 0x41, 1, 0xff],
            &[0x7f, 0x61, b'a', 0xff],
            // A tag.
            &[0xc0, 0x00],
            // Five levels.
            &[0x81, 0x81, 0x81, 0x81, 0x81, 0x00],
            // A list of 2^32 entries.
            &[0x9b, 0, 0, 0, 1, 0, 0, 0, 0],
        ] {
            assert_eq!(skipped(bytes), None, "{bytes:x?}");
        }
    }
}
