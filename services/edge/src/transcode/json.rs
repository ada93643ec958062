//! JSON as protobuf defines it (`ProtoJSON`), into messages and back.

use std::fmt::Write;

use bytes::Bytes;
use drystone_mesh::error::{Error, Reason, Result};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::error::Category;

use crate::transcode::{
    field::{Spelling, field},
    shape::Shape,
    text,
    tracked::{MAX_DEPTH, Step, Tracked, Trail},
};

/// Fields that hold their default are written too, so that a client sees `"roles": []` and not nothing.
const WRITE: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

/// Reads a message.
///
/// # Errors
/// `MALFORMED_BODY` for what is no JSON object, `INVALID_REQUEST` for a member that is unknown, given twice in whichever spelling,
/// or has a value of the wrong kind: the error names it.
pub(crate) fn read(message: &MessageDescriptor, body: &[u8]) -> Result<DynamicMessage> {
    let body = utf8(body)?;
    let mut trail = Trail::default();
    let mut json = serde_json::Deserializer::from_str(body);
    let tracked = Tracked::new(&mut json, Shape::of(message), &mut trail);
    let read = DynamicMessage::deserialize(message.clone(), tracked);
    match read.and_then(|read| json.end().map(|()| read)) {
        Ok(read) => Ok(read),
        Err(error) => Err(refuse(message, &error, &trail)),
    }
}

/// Reads the value of one field into `message`.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_field(message: &mut DynamicMessage, field: &FieldDescriptor, body: &[u8]) -> Result<()> {
    let value = match field.kind() {
        Kind::Message(inner) if !field.is_list() && !field.is_map() => {
            prost_reflect::Value::Message(read(&inner, body)?)
        }
        _ => {
            // The library reads whole messages only, so one is written around the value: around one whole value, or
            // the body could say more than its field.
            let text = utf8(body)?;
            let parent = field.parent_message();
            let mut trail = Trail::default();
            let mut json = serde_json::Deserializer::from_str(text);
            let whole =
                IgnoredAny::deserialize(Tracked::new(&mut json, Shape::Free, &mut trail)).and_then(|_| json.end());
            whole.map_err(|error| refuse(parent, &error, &trail))?;
            let name = serde_json::Value::from(field.json_name());
            let mut around = read(parent, format!("{{{name}:{text}}}").as_bytes())?;
            around.take_field(field).unwrap_or_else(|| prost_reflect::Value::default_value_for_field(field))
        }
    };
    message.set_field(field, value);
    Ok(())
}

/// Writes a message.
///
/// # Errors
/// `INTERNAL` if the message holds what JSON cannot say, such as a time after the year 9999.
pub(crate) fn write(message: &DynamicMessage) -> Result<Bytes> {
    let mut written = Vec::with_capacity(512);
    let mut json = serde_json::Serializer::new(&mut written);
    message.serialize_with_options(&mut json, &WRITE).map_err(Error::internal)?;
    Ok(Bytes::from(written))
}

fn utf8(body: &[u8]) -> Result<&str> {
    std::str::from_utf8(body).map_err(|error| {
        malformed(format!("the body is not UTF-8: byte {} cannot be read; send JSON in UTF-8", error.valid_up_to() + 1))
    })
}

fn malformed(message: String) -> Error {
    Error::new(Reason::MalformedBody, message)
}

fn refuse(message: &MessageDescriptor, error: &serde_json::Error, trail: &Trail<'_>) -> Error {
    let place = format!("line {}, column {}", error.line(), error.column());
    if trail.is_too_deep() {
        return malformed(format!("the body is nested too deep at {place}; at most {MAX_DEPTH} levels are taken"));
    }
    match error.classify() {
        Category::Eof => malformed("the body ends in the middle of its JSON".to_owned()),
        Category::Syntax | Category::Io => {
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            malformed(format!("the body is not JSON: {what} at {place}"))
        }
        Category::Data => match field_error(message, error, trail) {
            Some((path, description)) => Error::invalid_field(path, description),
            None => malformed("the body must be a JSON object".to_owned()),
        },
    }
}

/// Where the error is, and what is wrong there. `None` if it is the whole body.
fn field_error(message: &MessageDescriptor, error: &serde_json::Error, trail: &Trail<'_>) -> Option<(String, String)> {
    let path = show(trail);
    if path.is_empty() {
        return None;
    }
    let looked = look_up(message, trail);
    if trail.is_duplicate() {
        return Some((path, duplicate(&looked)));
    }
    let description = match looked {
        Looked::Field(field) if error.to_string().starts_with("multiple fields provided for oneof") => {
            let rivals = field.containing_oneof().into_iter().flat_map(|oneof| oneof.fields().collect::<Vec<_>>());
            let names: Vec<String> = rivals.map(|rival| rival.json_name().to_owned()).collect();
            format!("only one of {} can be given", names.join(", "))
        }
        Looked::Field(field) if field.is_list() => format!("must be a list, each item {}", text::expected(&field)),
        Looked::Field(field) | Looked::Item(field) => format!("must be {}", text::expected(&field)),
        Looked::Unknown(message) => unknown(&message),
        Looked::Free => "cannot be read here".to_owned(),
    };
    Some((path, description))
}

/// What to say of a member that is given twice.
fn duplicate(member: &Looked) -> String {
    match member {
        Looked::Field(field) if field.name() != field.json_name() => {
            format!("is given twice; {} and {} are one field: send it once", field.json_name(), field.name())
        }
        _ => "is given twice in one object; send it once".to_owned(),
    }
}

/// What to say of a member that a message does not have.
pub(crate) fn unknown(message: &MessageDescriptor) -> String {
    let names: Vec<String> = message.fields().map(|field| field.json_name().to_owned()).collect();
    if names.is_empty() {
        return "is not known here; this call takes no fields".to_owned();
    }
    format!("is not known here; known are {}", names.join(", "))
}

/// What a trail leads to.
enum Looked {
    /// A field.
    Field(FieldDescriptor),
    /// An item of this list, or a value of this map.
    Item(FieldDescriptor),
    /// A member that this message does not have.
    Unknown(MessageDescriptor),
    /// Something that no descriptor describes.
    Free,
}

fn look_up(message: &MessageDescriptor, trail: &Trail<'_>) -> Looked {
    let mut at = None;
    let mut inside = Some(message.clone());
    for step in trail.steps() {
        at = Some(match (step, at, inside.take()) {
            (Step::Item(_), Some(Looked::Field(list)), _) if list.is_list() => Looked::Item(list),
            (Step::Member(_), Some(Looked::Field(map)), Some(entry)) if map.is_map() => {
                Looked::Item(entry.map_entry_value_field())
            }
            (Step::Member(name), _, Some(message)) if !is_well_known(&message) => {
                match field(&message, name, Spelling::Json) {
                    Some(field) => Looked::Field(field),
                    None => return Looked::Unknown(message),
                }
            }
            _ => return Looked::Free,
        });
        inside = match &at {
            Some(Looked::Field(field) | Looked::Item(field)) => field.kind().as_message().cloned(),
            _ => None,
        };
    }
    at.unwrap_or(Looked::Free)
}

/// Whether JSON writes the message in a form of its own.
pub(crate) fn is_well_known(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

fn show(trail: &Trail<'_>) -> String {
    let mut path = String::new();
    for step in trail.steps() {
        match step {
            Step::Member(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                // A name can be as long as the body; who sent it knows the rest.
                path.extend(name.chars().take(64));
            }
            Step::Item(number) => {
                // A text takes whatever is written into it.
                let _ = write!(path, "[{number}]");
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use drystone_tests::fixture;

    const WHOLE: &str = r#"{"text":"a","number":1,"nested":{"deeper":{}},"texts":["x"],"labels":{"k":"v"},"anything":{"a":[1]},
        "at":"2030-01-31T12:00:00Z","for":"1s","mask":"a.b","maybeNumber":5,"data":"AA==","colour":1,"left":"l"}"#;

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in any::<Vec<u8>>()) {
            let _ = read(&fixture::message("Everything"), &body);
        }

        /// A valid body with one byte changed is read or refused with a reason that is the client's fault.
        #[test]
        fn damage_is_the_clients_fault(at in 0..WHOLE.len(), byte in any::<u8>()) {
            let mut body = WHOLE.as_bytes().to_vec();
            body[at] = byte;
            if let Err(error) = read(&fixture::message("Everything"), &body) {
                prop_assert!(matches!(error.reason(), Reason::MalformedBody | Reason::InvalidRequest), "{}", error);
            }
        }

        #[test]
        fn what_is_written_is_read_back(text in any::<String>(), number in any::<i64>(), data in any::<Vec<u8>>()) {
            let message = fixture::message("Everything");
            let mut given = DynamicMessage::new(message.clone());
            given.set_field_by_name("text", prost_reflect::Value::String(text.clone()));
            given.set_field_by_name("big_number", prost_reflect::Value::I64(number));
            given.set_field_by_name("data", prost_reflect::Value::Bytes(data.into()));
            given.set_field_by_name("perhaps", prost_reflect::Value::String(text));
            let written = write(&given).unwrap();
            prop_assert_eq!(read(&message, &written).unwrap().encode_to_vec(), given.encode_to_vec());
        }
    }
}
