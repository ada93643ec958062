//! The protobuf type of a JSON value, as far as it decides which names in an object denote the same member: `displayName` and
//! `display_name` are one field, and `1` and `01` one key of a map of numbers.

use std::{borrow::Cow, cell::RefCell};

use drystone_mesh::json::Schema;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::transcode::{
    field::{self, Spelling},
    json, text,
};

/// Messages with a JSON form of their own, in which member names are not field names.
const UNTYPED: [&str; 6] = [
    "google.protobuf.Struct",
    "google.protobuf.Value",
    "google.protobuf.ListValue",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
];
const ANY: &str = "google.protobuf.Any";

/// The type of a JSON value.
#[derive(Debug, Clone, Default)]
pub(crate) enum ProtoType<'r> {
    /// A message: its members are fields. The recorder, if any, gets them as they are read.
    Message(MessageDescriptor, Option<Recorder<'r>>),
    /// A map, by the message of its entries: its members are keys.
    Map(MessageDescriptor),
    /// A list of these messages.
    List(MessageDescriptor),
    /// A message whose type the value itself names. Its fields are not known here, but both spellings of one field are the
    /// same in snake case.
    Any,
    /// A value in which each name denotes its own member.
    #[default]
    Untyped,
}

/// The key by which members of an object are compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum MemberKey<'de> {
    /// The field of this number.
    Field(u32),
    /// The map key of this value.
    Number(i128),
    Name(Cow<'de, str>),
}

/// The fields that a JSON object holds, null ones included: objects before their members, and only what can be reached
/// through single messages. A message does not keep which fields were given.
#[derive(Debug, Default)]
pub(crate) struct GivenFields(RefCell<Vec<GivenField>>);

/// A field that a JSON object holds.
#[derive(Debug)]
pub(crate) struct GivenField {
    /// 0 for a member of the outermost object.
    pub(crate) depth: usize,
    pub(crate) field: FieldDescriptor,
}

impl GivenFields {
    /// Records the members of the outermost object.
    pub(crate) const fn recorder(&self) -> Recorder<'_> {
        Recorder { fields: self, depth: 0 }
    }

    pub(crate) fn into_inner(self) -> Vec<GivenField> {
        self.0.into_inner()
    }
}

/// Records the members of one object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorder<'r> {
    fields: &'r GivenFields,
    depth: usize,
}

impl Recorder<'_> {
    fn record(self, field: FieldDescriptor) {
        self.fields.0.borrow_mut().push(GivenField { depth: self.depth, field });
    }

    const fn nested(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }
}

impl<'r> ProtoType<'r> {
    /// The type of a message.
    pub(crate) fn of(message: &MessageDescriptor, recorder: Option<Recorder<'r>>) -> Self {
        match message.full_name() {
            ANY => Self::Any,
            name if UNTYPED.contains(&name) => Self::Untyped,
            _ => Self::Message(message.clone(), recorder.filter(|_| !json::is_well_known(message))),
        }
    }

    fn of_field(field: &FieldDescriptor, recorder: Option<Recorder<'r>>) -> Self {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => Self::Map(entry),
            Kind::Message(message) if field.is_list() => Self::List(message),
            Kind::Message(message) => Self::of(&message, recorder),
            _ => Self::Untyped,
        }
    }
}

impl Schema for ProtoType<'_> {
    type Key<'de> = MemberKey<'de>;

    fn item(&self) -> Self {
        match self {
            Self::List(message) => Self::of(message, None),
            Self::Any => Self::Any,
            Self::Message(..) | Self::Map(_) | Self::Untyped => Self::Untyped,
        }
    }

    fn member<'de>(&self, name: Cow<'de, str>) -> (MemberKey<'de>, Self) {
        match self {
            Self::Message(message, recorder) => match field::field(message, &name, Spelling::Json) {
                Some(field) => {
                    let value = Self::of_field(&field, recorder.map(Recorder::nested));
                    let key = MemberKey::Field(field.number());
                    if let Some(recorder) = recorder {
                        recorder.record(field);
                    }
                    (key, value)
                }
                None => (MemberKey::Name(name), Self::Untyped),
            },
            Self::Map(entry) => {
                let value = Self::of_field(&entry.map_entry_value_field(), None);
                (map_key(&entry.map_entry_key_field().kind(), name), value)
            }
            // A well-known type is in `value`, in its own JSON form.
            Self::Any if name == "value" => (MemberKey::Name(name), Self::Untyped),
            Self::Any => (MemberKey::Name(Cow::Owned(text::snake_case(&name))), Self::Any),
            Self::List(_) | Self::Untyped => (MemberKey::Name(name), Self::Untyped),
        }
    }
}

/// Number keys are equal by value, others by name.
fn map_key<'de>(kind: &Kind, name: Cow<'de, str>) -> MemberKey<'de> {
    match kind {
        Kind::String | Kind::Bool => MemberKey::Name(name),
        _ => match name.parse() {
            Ok(number) => MemberKey::Number(number),
            Err(_) => MemberKey::Name(name),
        },
    }
}
