//! Values as plain text, in paths and queries; and descriptions of what a field accepts.

use drystone::contract::rest::TEXT_MESSAGES as WRITABLE;
pub(crate) use drystone::contract::rest::is_text as is_writable;
use prost::bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use serde::de::value::{Error as PlainError, StrDeserializer};

/// Parses one value of the field (of a list: one item). `None` if the text is invalid, or if the field has no text form.
pub(crate) fn parse(field: &FieldDescriptor, text: &str) -> Option<Value> {
    if field.is_map() { None } else { parse_kind(&field.kind(), text) }
}

pub(crate) const FIELD_MASK: &str = "google.protobuf.FieldMask";

fn parse_kind(kind: &Kind, text: &str) -> Option<Value> {
    Some(match kind {
        Kind::Double => Value::F64(parse_float(text)?),
        #[expect(clippy::cast_possible_truncation, reason = "out of range becomes infinite, which is refused")]
        Kind::Float => {
            let wide: f64 = parse_float(text)?;
            let narrow = wide as f32;
            (narrow.is_finite() || !wide.is_finite()).then_some(Value::F32(narrow))?
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(text)?.parse().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(text)?.parse().ok()?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number(text)?.parse().ok()?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number(text)?.parse().ok()?),
        Kind::Bool => Value::Bool(match text {
            "true" => true,
            "false" => false,
            _ => return None,
        }),
        Kind::String => Value::String(text.to_owned()),
        Kind::Bytes => Value::Bytes(parse_bytes(text)?),
        Kind::Enum(values) => Value::EnumNumber(match values.get_value_by_name(text) {
            Some(value) => value.number(),
            None => number(text)?.parse().ok()?,
        }),
        Kind::Message(message) => Value::Message(parse_message(message, text)?),
    })
}

/// JSON integers have no plus sign.
fn number(text: &str) -> Option<&str> {
    (!text.starts_with('+')).then_some(text)
}

fn parse_float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        // Rust parses more names for these than protobuf has.
        text if text.bytes().any(|byte| byte.is_ascii_alphabetic() && !matches!(byte, b'e' | b'E')) => None,
        text => text.parse().ok().filter(|number: &f64| number.is_finite()),
    }
}

fn parse_bytes(text: &str) -> Option<Bytes> {
    let descriptor = prost_reflect::DescriptorPool::global().get_message_by_name("google.protobuf.BytesValue")?;
    let wrapper = as_json(&descriptor, text)?;
    wrapper.get_field_by_number(1).and_then(|value| value.as_bytes().cloned())
}

fn parse_message(message: &MessageDescriptor, text: &str) -> Option<DynamicMessage> {
    match message.full_name() {
        FIELD_MASK => parse_mask(message, text),
        name if name.ends_with("Value") && WRITABLE.contains(&name) => {
            let value = parse_kind(&message.get_field(1)?.kind(), text)?;
            let mut wrapper = DynamicMessage::new(message.clone());
            wrapper.set_field_by_number(1, value);
            Some(wrapper)
        }
        name if WRITABLE.contains(&name) => as_json(message, text),
        _ => None,
    }
}

/// The message whose JSON form is this string.
fn as_json(message: &MessageDescriptor, text: &str) -> Option<DynamicMessage> {
    DynamicMessage::deserialize(message.clone(), StrDeserializer::<PlainError>::new(text)).ok()
}

/// A field mask in JSON names (`displayName`) or proto names (`display_name`).
fn parse_mask(message: &MessageDescriptor, text: &str) -> Option<DynamicMessage> {
    let paths = text.split(',').filter(|path| !path.is_empty()).map(|path| {
        let is_valid = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.*".contains(&byte));
        is_valid.then(|| Value::String(snake_case(path)))
    });
    let mut mask = DynamicMessage::new(message.clone());
    mask.set_field_by_number(1, Value::List(paths.collect::<Option<_>>()?));
    Some(mask)
}

/// The proto name of a JSON name.
pub(crate) fn snake_case(path: &str) -> String {
    let mut snake = String::with_capacity(path.len() + 4);
    for character in path.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

/// Describes the values that the field accepts; it follows "must be" in an error.
pub(crate) fn expected(field: &FieldDescriptor) -> String {
    if field.is_map() { "an object".to_owned() } else { expected_kind(&field.kind()) }
}

fn expected_kind(kind: &Kind) -> String {
    match kind {
        Kind::Double | Kind::Float => "a number".to_owned(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => format!("a whole number from {} to {}", i32::MIN, i32::MAX),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => format!("a whole number from {} to {}", i64::MIN, i64::MAX),
        Kind::Uint32 | Kind::Fixed32 => format!("a whole number from 0 to {}", u32::MAX),
        Kind::Uint64 | Kind::Fixed64 => format!("a whole number from 0 to {}", u64::MAX),
        Kind::Bool => "true or false".to_owned(),
        Kind::String => "a string".to_owned(),
        Kind::Bytes => "base64 in a string".to_owned(),
        Kind::Enum(values) => {
            let names: Vec<_> = values.values().map(|value| value.name().to_owned()).collect();
            format!("one of {}", names.join(", "))
        }
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => "a time such as `2030-01-31T12:00:00Z`".to_owned(),
            "google.protobuf.Duration" => "a duration in seconds, such as `1.5s`".to_owned(),
            FIELD_MASK => "field names separated by commas, such as `displayName,labels`".to_owned(),
            "google.protobuf.ListValue" => "a list".to_owned(),
            name if name.ends_with("Value") && WRITABLE.contains(&name) => {
                message.get_field(1).map_or_else(|| "a value".to_owned(), |field| expected_kind(&field.kind()))
            }
            _ => "an object".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drystone_tests::fixture;

    fn read(field: &str, text: &str) -> Option<String> {
        let field = fixture::message("Everything").get_field_by_name(field).unwrap();
        parse(&field, text).map(|value| match value {
            Value::Message(message) => serde_json::to_string(&message).unwrap(),
            value => value.to_string(),
        })
    }

    #[test]
    fn scalars_are_parsed_strictly() {
        assert_eq!(read("number", "-7").as_deref(), Some("-7"));
        assert_eq!(read("big_number", "9223372036854775807").as_deref(), Some("9223372036854775807"));
        assert_eq!(read("switch", "true").as_deref(), Some("true"));
        assert_eq!(read("text", "").as_deref(), Some("\"\""));
        assert!(read("fraction", "1e3").is_some() && read("fraction", "NaN").is_some());
        for (field, text) in [
            ("number", ""),
            ("number", "+7"),
            ("number", "7.0"),
            ("number", " 7"),
            ("number", "2147483648"),
            ("count", "-1"),
            ("switch", "TRUE"),
            ("switch", "1"),
            ("fraction", "inf"),
            ("fraction", "1e999"),
            ("fraction", "nan"),
            ("small_fraction", "1e39"),
            ("colour", "COLOUR_MAUVE"),
            ("data", "not base64!"),
        ] {
            assert_eq!(read(field, text), None, "{field}={text}");
        }
    }

    #[test]
    fn enums_are_parsed_by_name_or_number() {
        assert_eq!(read("colour", "COLOUR_RED"), read("colour", "1"));
        assert!(read("colour", "COLOUR_RED").is_some());
    }

    #[test]
    fn bytes_are_base64_in_the_standard_or_url_safe_alphabet() {
        let plain = read("data", "+/8=");
        assert!(plain.is_some());
        assert_eq!(read("data", "-_8"), plain);
    }

    #[test]
    fn well_known_types_have_their_own_text_form() {
        assert_eq!(read("at", "2030-01-31T12:00:00Z").as_deref(), Some("\"2030-01-31T12:00:00Z\""));
        assert_eq!(read("for", "1.5s").as_deref(), Some("\"1.500s\""));
        assert_eq!(read("mask", "displayName,nested.big_number").as_deref(), Some("\"displayName,nested.bigNumber\""));
        assert_eq!(read("maybe_number", "5").as_deref(), Some("5"));
        assert_eq!(read("maybe_text", "").as_deref(), Some("\"\""));
        for (field, text) in
            [("at", "yesterday"), ("for", "5"), ("mask", "a-b"), ("maybe_number", "x"), ("nested", "{}")]
        {
            assert_eq!(read(field, text), None, "{field}={text}");
        }
    }

    #[test]
    fn expected_values_are_described() {
        let field = |name| fixture::message("Everything").get_field_by_name(name).unwrap();
        assert_eq!(expected(&field("number")), "a whole number from -2147483648 to 2147483647");
        assert_eq!(expected(&field("maybe_number")), expected(&field("number")));
        assert_eq!(expected(&field("labels")), "an object");
        assert!(expected(&field("colour")).contains("COLOUR_RED"));
        assert!(is_writable(&field("maybe_text")) && !is_writable(&field("nested")) && !is_writable(&field("labels")));
    }
}
