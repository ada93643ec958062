//! JSON as a token may hold it: one object without duplicate members at any depth (RFC 8725, section 2.4), and not nested
//! deep.

use serde::{Deserialize, de::IgnoredAny};

use crate::json::{Strict, Track, Untyped};

/// How deep lists and objects may nest; the tokens issued here need 2.
const MAX_DEPTH: usize = 8;

/// The text of these bytes, if it is one valid object.
pub(super) fn object(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    if !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut track = Track::new(MAX_DEPTH);
    IgnoredAny::deserialize(Strict::new(&mut deserializer, Untyped, &mut track)).ok()?;
    deserializer.end().ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn objects_with_each_member_once_are_valid() {
        for text in ["{}", r#"{"a":1,"b":[1,2.5,-3,"x",true,null,{"a":{}}]}"#, r#" {"a":{"b":1},"c":{"b":1}} "#] {
            assert_eq!(object(text.as_bytes()), Some(text));
        }
    }

    #[test]
    fn a_member_twice_is_found_at_any_depth_and_in_any_spelling() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#, r#"{"x":{"a":1,"a":2}}"#, r#"{"x":[[{"":1,"":2}]]}"#]
        {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn eight_levels_are_valid_and_nine_are_not() {
        let nested = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(object(nested(8).as_bytes()).is_some());
        assert!(object(nested(9).as_bytes()).is_none());
        assert!(object("{\"a\":".repeat(100_000).as_bytes()).is_none());
    }

    #[test]
    fn anything_but_one_object_is_invalid() {
        for text in ["", "[]", "1", "null", "\"{}\"", "{}{}", "{} x", "{", "\u{feff}{}", "{'a':1}", "{a:1}"] {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
        assert_eq!(object(b"{\"\xff\":1}"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_what_it_takes_is_an_object(bytes: Vec<u8>) {
            if let Some(text) = object(&bytes) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(text).unwrap().is_object());
            }
        }

        #[test]
        fn no_text_of_json_letters_makes_it_panic(text in r#"[\[\]{}:,"\\a0-9 truefalsn.eE+-]{0,60}"#) {
            if object(text.as_bytes()).is_some() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object());
            }
        }
    }
}
