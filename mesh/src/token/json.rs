//! Validates the JSON of a token: one object, without duplicate members at any depth, of limited nesting.
//!
//! Parsers differ in which duplicate member they use, so a token with duplicates is rejected before any value is used
//! (RFC 8725, section 2.4).

use std::{collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

/// The maximum nesting; our tokens need 2.
const MAX_DEPTH: u8 = 8;

/// The bytes as text, if they are one valid object.
pub(super) fn object(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(UniqueMembers { depth: MAX_DEPTH }).ok()?;
    deserializer.end().ok()?;
    Some(text)
}

/// Visits any value, with `depth` levels of nesting left.
#[derive(Clone, Copy)]
struct UniqueMembers {
    depth: u8,
}

impl UniqueMembers {
    fn descend<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for UniqueMembers {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueMembers {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.descend()?;
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name) {
                return Err(A::Error::custom("duplicate member"));
            }
            map.next_value_seed(inner)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let inner = self.descend()?;
        while sequence.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
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
    fn duplicate_members_are_rejected_at_any_depth_and_escaping() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#, r#"{"x":{"a":1,"a":2}}"#, r#"{"x":[[{"":1,"":2}]]}"#]
        {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn nesting_is_limited_to_eight_levels() {
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
        fn arbitrary_bytes_never_panic_and_accepted_text_is_an_object(bytes: Vec<u8>) {
            if let Some(text) = object(&bytes) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(text).unwrap().is_object());
            }
        }

        #[test]
        fn json_like_text_never_panics(text in r#"[\[\]{}:,"\\a0-9 truefalsn.eE+-]{0,60}"#) {
            if object(text.as_bytes()).is_some() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object());
            }
        }
    }
}
