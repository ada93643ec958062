//! JSON as protobuf defines it (`ProtoJSON`), into messages and back.

use std::fmt::Write;

use bytes::Bytes;
use drystone::status::quote;
use drystone_mesh::{
    error::{Error, Reason, Result},
    json::{PathStep, Strict, Track},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::error::Category;

use crate::transcode::{
    field::{Spelling, field},
    proto_type::{ProtoType, Recorder},
    text,
};

/// Fields with their default value are written too, so that a client sees `"roles": []`.
const WRITE: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

/// How deep lists and objects may nest. Protobuf decoders stop at 100 nested messages, and one level of JSON is up to three
/// of them (`google.protobuf.Struct`).
const MAX_DEPTH: usize = 32;

/// Reads a message; the recorder, if any, gets its members.
///
/// # Errors
/// `MALFORMED_BODY` for what is not a JSON object, `INVALID_REQUEST` for a member that is unknown, duplicate (in either
/// spelling of its field) or of the wrong type: the error names it.
pub(crate) fn read(message: &MessageDescriptor, body: &[u8], recorder: Option<Recorder<'_>>) -> Result<DynamicMessage> {
    let body = utf8(body)?;
    let mut track = Track::new(MAX_DEPTH);
    let mut json = serde_json::Deserializer::from_str(body);
    let strict = Strict::new(&mut json, ProtoType::of(message, recorder), &mut track);
    let read = DynamicMessage::deserialize(message.clone(), strict);
    match read.and_then(|read| json.end().map(|()| read)) {
        Ok(read) => Ok(read),
        Err(error) => Err(read_error(message, &error, &track)),
    }
}

/// Reads the value of one field into `message`; the recorder, if any, gets the members of a single message.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_field(
    message: &mut DynamicMessage,
    field: &FieldDescriptor,
    body: &[u8],
    recorder: Option<Recorder<'_>>,
) -> Result<()> {
    let value = match field.kind() {
        Kind::Message(inner) if !field.is_list() && !field.is_map() => {
            prost_reflect::Value::Message(read(&inner, body, recorder)?)
        }
        _ => {
            // prost-reflect deserializes whole messages only, so one is written around the value. The value is checked
            // before: otherwise a body such as `1, "other": 2` would set other fields as well.
            let text = utf8(body)?;
            let parent = field.parent_message();
            let mut track = Track::new(MAX_DEPTH);
            let mut json = serde_json::Deserializer::from_str(text);
            IgnoredAny::deserialize(Strict::new(&mut json, ProtoType::Untyped, &mut track))
                .and_then(|_| json.end())
                .map_err(|error| read_error(parent, &error, &track))?;
            let name = serde_json::Value::from(field.json_name());
            let mut wrapped = read(parent, format!("{{{name}:{text}}}").as_bytes(), None)?;
            wrapped.take_field(field).unwrap_or_else(|| prost_reflect::Value::default_value_for_field(field))
        }
    };
    message.set_field(field, value);
    Ok(())
}

/// Writes a message.
///
/// # Errors
/// `INTERNAL` if JSON cannot represent the message, such as a time after the year 9999.
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

fn read_error(message: &MessageDescriptor, error: &serde_json::Error, track: &Track<'_>) -> Error {
    let position = format!("line {}, column {}", error.line(), error.column());
    if track.is_too_deep() {
        return malformed(format!(
            "the body is nested too deep at {position}; at most {MAX_DEPTH} levels are accepted"
        ));
    }
    match error.classify() {
        Category::Eof => malformed("the body ends in the middle of its JSON".to_owned()),
        Category::Syntax | Category::Io => {
            let text = error.to_string();
            let fault = text.split(" at line ").next().unwrap_or_default();
            malformed(format!("the body is not JSON: {fault} at {position}"))
        }
        Category::Data => match field_error(message, error, track) {
            Some((path, description)) => Error::invalid_field(path, description),
            None => malformed("the body must be a JSON object".to_owned()),
        },
    }
}

/// The path of an error, and its description. `None` if the error is about the whole body.
fn field_error(message: &MessageDescriptor, error: &serde_json::Error, track: &Track<'_>) -> Option<(String, String)> {
    let path = path(track);
    if path.is_empty() {
        return None;
    }
    let location = locate(message, track);
    if track.is_duplicate() {
        return Some((path, duplicate(&location)));
    }
    let description = match location {
        JsonLocation::Field(field) if error.to_string().starts_with("multiple fields provided for oneof") => {
            let alternatives =
                field.containing_oneof().into_iter().flat_map(|oneof| oneof.fields().collect::<Vec<_>>());
            let names: Vec<String> = alternatives.map(|field| field.json_name().to_owned()).collect();
            format!("only one of {} can be given", names.join(", "))
        }
        JsonLocation::Field(field) if field.is_list() => {
            format!("must be a list, each item {}", text::expected(&field))
        }
        JsonLocation::Field(field) | JsonLocation::Item(field) => format!("must be {}", text::expected(&field)),
        JsonLocation::Unknown(message) => unknown(&message),
        JsonLocation::Untyped => "cannot be read here".to_owned(),
    };
    Some((path, description))
}

/// Describes a duplicate member.
fn duplicate(location: &JsonLocation) -> String {
    match location {
        JsonLocation::Field(field) if field.name() != field.json_name() => {
            format!("is given twice; {} and {} are one field: send it once", field.json_name(), field.name())
        }
        _ => "is given twice in one object; send it once".to_owned(),
    }
}

/// Describes a member that a message does not have.
pub(crate) fn unknown(message: &MessageDescriptor) -> String {
    let names: Vec<String> = message.fields().map(|field| field.json_name().to_owned()).collect();
    if names.is_empty() {
        return "is not known here; this call has no fields".to_owned();
    }
    format!("is not known here; known are {}", names.join(", "))
}

/// The location of an error in a message.
enum JsonLocation {
    Field(FieldDescriptor),
    /// An item of this list, or a value of this map.
    Item(FieldDescriptor),
    /// A member that this message does not have.
    Unknown(MessageDescriptor),
    /// A value without descriptor.
    Untyped,
}

fn locate(message: &MessageDescriptor, track: &Track<'_>) -> JsonLocation {
    let mut location = None;
    let mut inside = Some(message.clone());
    for step in track.steps() {
        location = Some(match (step, location, inside.take()) {
            (PathStep::Item(_), Some(JsonLocation::Field(list)), _) if list.is_list() => JsonLocation::Item(list),
            (PathStep::Member(_), Some(JsonLocation::Field(map)), Some(entry)) if map.is_map() => {
                JsonLocation::Item(entry.map_entry_value_field())
            }
            (PathStep::Member(name), _, Some(message)) if !is_well_known(&message) => {
                match field(&message, name, Spelling::Json) {
                    Some(field) => JsonLocation::Field(field),
                    None => return JsonLocation::Unknown(message),
                }
            }
            _ => return JsonLocation::Untyped,
        });
        inside = match &location {
            Some(JsonLocation::Field(field) | JsonLocation::Item(field)) => field.kind().as_message().cloned(),
            _ => None,
        };
    }
    location.unwrap_or(JsonLocation::Untyped)
}

/// Whether the message has a JSON form of its own.
pub(crate) fn is_well_known(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

/// The path to an error, as in `children[1].displayName`.
fn path(track: &Track<'_>) -> String {
    let mut path = String::new();
    for step in track.steps() {
        match step {
            PathStep::Member(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&quote(name));
            }
            PathStep::Item(number) => {
                // Writing to a string does not fail.
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
        fn reading_never_panics(body in any::<Vec<u8>>()) {
            let _ = read(&fixture::message("Everything"), &body, None);
        }

        /// A valid body with one byte changed is read, or refused as a client error.
        #[test]
        fn a_corrupted_body_is_a_client_error(at in 0..WHOLE.len(), byte in any::<u8>()) {
            let mut body = WHOLE.as_bytes().to_vec();
            body[at] = byte;
            if let Err(error) = read(&fixture::message("Everything"), &body, None) {
                prop_assert!(matches!(error.reason(), Reason::MalformedBody | Reason::InvalidRequest), "{}", error);
            }
        }

        #[test]
        fn messages_survive_a_round_trip(text in any::<String>(), number in any::<i64>(), data in any::<Vec<u8>>()) {
            let message = fixture::message("Everything");
            let mut given = DynamicMessage::new(message.clone());
            given.set_field_by_name("text", prost_reflect::Value::String(text.clone()));
            given.set_field_by_name("big_number", prost_reflect::Value::I64(number));
            given.set_field_by_name("data", prost_reflect::Value::Bytes(data.into()));
            given.set_field_by_name("perhaps", prost_reflect::Value::String(text));
            let written = write(&given).unwrap();
            prop_assert_eq!(read(&message, &written, None).unwrap().encode_to_vec(), given.encode_to_vec());
        }
    }
}
