//! Percent-decoding (RFC 3986, section 2.1), strict: invalid encodings are errors.

use std::borrow::Cow;

/// Text that is not percent-encoded UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// A `%` without two hexadecimal digits.
    #[error("has a `%` that two hexadecimal digits do not follow; write `%25` for the sign itself")]
    Digits,
    /// Decoded bytes that are not UTF-8.
    #[error("is not UTF-8 once it is decoded")]
    Utf8,
}

/// A URI component (RFC 3986, section 3), which decides what else than `%XX` is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UriComponent {
    /// One segment of a path: `%2F` is decoded.
    Segment,
    /// Several segments of a path: `%2F` is kept, so that it differs from a slash between segments.
    Segments,
    /// A query: `+` is a space.
    Query,
}

/// Decodes `text`; text without encodings is not copied.
pub(crate) fn decode(text: &str, component: UriComponent) -> Result<Cow<'_, str>, DecodeError> {
    let is_plain = |byte: &u8| *byte != b'%' && (*byte != b'+' || component != UriComponent::Query);
    let bytes = text.as_bytes();
    let Some(first) = bytes.iter().position(|byte| !is_plain(byte)) else { return Ok(Cow::Borrowed(text)) };

    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (&digits, after) = after.split_first_chunk().ok_or(DecodeError::Digits)?;
                let value = hex(digits).ok_or(DecodeError::Digits)?;
                if value == b'/' && component == UriComponent::Segments {
                    decoded.push(b'%');
                    decoded.extend_from_slice(&digits);
                } else {
                    decoded.push(value);
                }
                rest = after;
            }
            b'+' if component == UriComponent::Query => decoded.push(b' '),
            byte => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| DecodeError::Utf8)
}

fn hex([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(decode("a+b~c", UriComponent::Segment), Ok(Cow::Borrowed("a+b~c"))));
        assert!(matches!(decode("abc", UriComponent::Query), Ok(Cow::Borrowed("abc"))));
    }

    #[test]
    fn each_component_has_its_own_decoding() {
        assert_eq!(decode("a%2Fb+c", UriComponent::Segment).unwrap(), "a/b+c");
        assert_eq!(decode("a%2Fb/%2f%20+c", UriComponent::Segments).unwrap(), "a%2Fb/%2f +c");
        assert_eq!(decode("a%2Fb+c%2B", UriComponent::Query).unwrap(), "a/b c+");
        assert_eq!(decode("%C3%BC%e2%82%ac", UriComponent::Segment).unwrap(), "ü€");
    }

    #[test]
    fn invalid_encodings_are_errors() {
        for text in ["%", "%2", "a%zz", "%+1", "%ü"] {
            assert_eq!(decode(text, UriComponent::Query), Err(DecodeError::Digits), "{text}");
        }
        for text in ["%ff", "%C3", "%c3%28", "%ed%a0%80"] {
            assert_eq!(decode(text, UriComponent::Segment), Err(DecodeError::Utf8), "{text}");
        }
    }

    proptest! {
        #[test]
        fn encoded_text_survives_a_round_trip(text in any::<String>()) {
            let mut encoded = String::new();
            text.bytes().for_each(|byte| write!(encoded, "%{byte:02x}").unwrap());
            prop_assert_eq!(decode(&encoded, UriComponent::Segment).unwrap(), text);
        }

        #[test]
        fn decoding_never_panics(text in any::<String>()) {
            let _ = decode(&text, UriComponent::Query);
            let _ = decode(&text, UriComponent::Segments);
        }
    }
}
