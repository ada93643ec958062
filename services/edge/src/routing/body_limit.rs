//! The maximum size of a body, from the bounds of the fields that it maps to.
//!
//! A body that is larger than any valid one is refused before it has arrived. The size is that of the longest spelling in
//! JSON: each character as an escape sequence.

use std::collections::HashSet;

use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
};

use super::route::BodyMapping;

/// The limit of a body that no field bounds further, so that white space and a misplaced body get a specific error.
const MIN_LIMIT: usize = 4 << 10;

/// The longest escape sequence of a character, a surrogate pair (RFC 8259, section 7).
const ESCAPED_CHARACTER: usize = "\\ud83d\\ude00".len();

/// The longest escape sequence of an ASCII character, or of a byte of a UTF-8 sequence.
const ESCAPED_BYTE: usize = "\\u0000".len();

/// Quotes, colon, comma and brackets around a value, with as much white space as indentation takes.
const PUNCTUATION: usize = 64;

/// A number, a boolean, a timestamp or a duration, in any spelling that is not absurd.
const SCALAR: usize = 64 * ESCAPED_BYTE;

/// A field that only the server sets. A client may send back what it has read, and the contract bounds only requests.
const OUTPUT_ONLY: usize = 4 << 10;

const UUID_LENGTH: usize = 36;

/// Messages in messages. A recursive message is not bounded.
const MAX_DEPTH: usize = 16;

/// Computes limits from the rules of a contract.
pub(crate) struct BodyLimits<'a> {
    /// The option `buf.validate.field`; `None` if the contract does not use it.
    rules: Option<ExtensionDescriptor>,
    /// The full names of the fields that only the server sets.
    output_only: &'a HashSet<String>,
}

impl<'a> BodyLimits<'a> {
    pub(crate) fn new(pool: &DescriptorPool, output_only: &'a HashSet<String>) -> Self {
        Self { rules: pool.get_extension_by_name("buf.validate.field"), output_only }
    }

    /// The size of the largest valid body in bytes; `None` if a field has no bound.
    pub(crate) fn of(&self, input: &MessageDescriptor, body: &BodyMapping) -> Option<usize> {
        let size = match body {
            BodyMapping::Nothing => 0,
            BodyMapping::Whole => self.message(input, 0)?,
            BodyMapping::Field(field) => self.field(field, 0)?,
        };
        Some(size.saturating_add(MIN_LIMIT))
    }

    fn message(&self, message: &MessageDescriptor, depth: usize) -> Option<usize> {
        match message.full_name() {
            "google.protobuf.Timestamp" | "google.protobuf.Duration" => return Some(SCALAR),
            // Strings and trees without bounds.
            "google.protobuf.Any"
            | "google.protobuf.FieldMask"
            | "google.protobuf.Struct"
            | "google.protobuf.Value"
            | "google.protobuf.ListValue" => return None,
            _ => {}
        }
        if depth >= MAX_DEPTH {
            return None;
        }
        message.fields().try_fold(PUNCTUATION, |sum, field| {
            let name = field.name().len().max(field.json_name().len()) * ESCAPED_BYTE;
            Some(sum.saturating_add(name).saturating_add(self.field(&field, depth)?).saturating_add(PUNCTUATION))
        })
    }

    fn field(&self, field: &FieldDescriptor, depth: usize) -> Option<usize> {
        if self.output_only.contains(field.full_name()) {
            match field.kind() {
                // A list has the bounds that the contract states.
                _ if field.is_list() || field.is_map() => {}
                Kind::Message(message) => return self.message(&message, depth + 1),
                _ => return Some(OUTPUT_ONLY),
            }
        }
        let options = field.options();
        let rules = self.rules.as_ref().filter(|rules| options.has_extension(rules));
        let rules = rules.and_then(|rules| options.get_extension(rules).as_message().cloned());
        let rules = rules.as_ref().filter(|rules| !are_ignored(rules));
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return None };
            let map = nested(rules, "map")?;
            let (keys, values) = (nested(Some(&map), "keys"), nested(Some(&map), "values"));
            let key = value(&entry.map_entry_key_field().kind(), keys.as_ref(), self, depth)?;
            let value = value(&entry.map_entry_value_field().kind(), values.as_ref(), self, depth)?;
            return number(&map, "max_pairs")?.checked_mul(key.saturating_add(value).saturating_add(2 * PUNCTUATION));
        }
        if field.is_list() {
            let list = nested(rules, "repeated")?;
            let items = nested(Some(&list), "items");
            let item = value(&field.kind(), items.as_ref(), self, depth)?;
            return number(&list, "max_items")?.checked_mul(item.saturating_add(PUNCTUATION));
        }
        value(&field.kind(), rules, self, depth)
    }
}

/// Whether the server ignores these rules (`IGNORE_ALWAYS`).
fn are_ignored(rules: &DynamicMessage) -> bool {
    const IGNORE_ALWAYS: i32 = 3;
    rules.get_field_by_name("ignore").and_then(|ignore| ignore.as_enum_number()) == Some(IGNORE_ALWAYS)
}

/// The size of a single value under these `buf.validate.FieldRules`.
fn value(kind: &Kind, rules: Option<&DynamicMessage>, limits: &BodyLimits<'_>, depth: usize) -> Option<usize> {
    let rules = rules.filter(|rules| !are_ignored(rules));
    match kind {
        Kind::Message(message) => limits.message(message, depth + 1),
        Kind::String => string(&nested(rules, "string")?),
        Kind::Bytes => {
            let rules = nested(rules, "bytes")?;
            let length = number(&rules, "len").or_else(|| number(&rules, "max_len"))?;
            // Base64, each character as an escape sequence.
            length.div_ceil(3).checked_mul(4 * ESCAPED_BYTE)
        }
        Kind::Enum(values) => Some(longest_name(values) * ESCAPED_BYTE),
        _ => Some(SCALAR),
    }
}

fn string(rules: &DynamicMessage) -> Option<usize> {
    let is_uuid = rules.get_field_by_name("uuid").and_then(|uuid| uuid.as_bool()).unwrap_or(false);
    if is_uuid {
        return Some(UUID_LENGTH * ESCAPED_BYTE);
    }
    let characters = number(rules, "len").or_else(|| number(rules, "max_len"));
    let bytes = number(rules, "len_bytes").or_else(|| number(rules, "max_bytes"));
    let characters = characters.and_then(|count| count.checked_mul(ESCAPED_CHARACTER));
    let bytes = bytes.and_then(|count| count.checked_mul(ESCAPED_BYTE));
    [characters, bytes].into_iter().flatten().min()
}

fn longest_name(values: &EnumDescriptor) -> usize {
    values.values().map(|value| value.name().len()).max().unwrap_or_default()
}

/// The message in this field, if it is set.
fn nested(message: Option<&DynamicMessage>, name: &str) -> Option<DynamicMessage> {
    let message = message?;
    if !message.has_field_by_name(name) {
        return None;
    }
    message.get_field_by_name(name)?.as_message().cloned()
}

/// The number in this field, if it is set.
fn number(message: &DynamicMessage, name: &str) -> Option<usize> {
    if !message.has_field_by_name(name) {
        return None;
    }
    usize::try_from(message.get_field_by_name(name)?.as_u64()?).ok()
}

#[cfg(test)]
mod tests {
    use drystone::contract::Contracts;

    use super::*;
    use crate::routing::route;

    /// The limit of the body of each route of Drystone's contracts.
    fn limits(contracts: &Contracts) -> Vec<(String, Option<usize>)> {
        let routes = route::read(contracts).unwrap();
        routes.into_iter().map(|route| (route.label.to_string(), route.body_limit)).collect()
    }

    #[test]
    fn every_route_of_ours_has_a_limit_far_below_the_default() {
        for (label, limit) in limits(&drystone::contracts().unwrap()) {
            let limit = limit.unwrap_or_else(|| panic!("{label} has no limit"));
            assert!(limit <= 256 << 10, "{label}: {limit}");
            if label.starts_with("GET") || label.starts_with("DELETE") {
                assert_eq!(limit, MIN_LIMIT, "{label}");
            }
        }
    }

    #[test]
    fn the_longest_spelling_of_a_valid_body_is_within_the_limit() {
        let text = |length: usize| "\\ud83d\\ude00".repeat(length);
        let labels: Vec<String> =
            (0..32).map(|_| format!("    \"{}\": \"{}\",\n", "\\u0061".repeat(63), text(256))).collect();
        let body = format!(
            "{{\n  \"display_name\": \"{}\",\n  \"description\": \"{}\",\n  \"labels\": {{\n{}  }},\n  \"request_id\": \"{}\"\n}}\n",
            text(200),
            text(2000),
            labels.concat(),
            "\\u0061".repeat(36),
        );
        let limits = limits(&drystone::contracts().unwrap());
        let (_, limit) = limits.iter().find(|(label, _)| label == "POST /v1/properties").unwrap();
        assert!(body.len() <= limit.unwrap(), "{} of {limit:?}", body.len());
        assert!(body.len() > limit.unwrap() / 2, "the limit is not far above: {} of {limit:?}", body.len());
    }
}
