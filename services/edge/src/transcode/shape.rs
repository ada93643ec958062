//! What a JSON value stands for in the contract, as far as it decides which members of an object are the same one:
//! `displayName` and `display_name` are one field, and `1` and `01` one key of a map of numbers.

use std::{borrow::Cow, collections::HashSet};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::transcode::{
    field::{self, Spelling},
    text,
};

/// Messages that JSON writes in a form of their own, in which names mean no fields.
const FREE: [&str; 6] = [
    "google.protobuf.Struct",
    "google.protobuf.Value",
    "google.protobuf.ListValue",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
];
const ANY: &str = "google.protobuf.Any";

/// What a JSON value stands for.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// A message: members are its fields.
    Message(MessageDescriptor),
    /// A map, by the message of its entries: members are keys.
    Map(MessageDescriptor),
    /// A list of these messages.
    List(MessageDescriptor),
    /// A message whose type the value itself names. Which fields it has is not known here, but both spellings of one
    /// field are the same in snake case.
    Any,
    /// A value in which each name means itself.
    Free,
}

/// What makes a member of an object the same as another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Identity<'de> {
    Field(u32),
    Number(i128),
    Name(Cow<'de, str>),
}

impl Shape {
    /// The shape of a message.
    pub(crate) fn of(message: &MessageDescriptor) -> Self {
        match message.full_name() {
            ANY => Self::Any,
            name if FREE.contains(&name) => Self::Free,
            _ => Self::Message(message.clone()),
        }
    }

    fn of_field(field: &FieldDescriptor) -> Self {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => Self::Map(entry),
            Kind::Message(message) if field.is_list() => Self::List(message),
            Kind::Message(message) => Self::of(&message),
            _ => Self::Free,
        }
    }

    /// The shape of a list's items.
    pub(crate) fn item(&self) -> Self {
        match self {
            Self::List(message) => Self::of(message),
            Self::Any => Self::Any,
            Self::Message(_) | Self::Map(_) | Self::Free => Self::Free,
        }
    }

    /// Which member a name means, and the shape of its value.
    pub(crate) fn member<'de>(&self, name: Cow<'de, str>) -> (Identity<'de>, Self) {
        match self {
            Self::Message(message) => match field::field(message, &name, Spelling::Json) {
                Some(field) => (Identity::Field(field.number()), Self::of_field(&field)),
                None => (Identity::Name(name), Self::Free),
            },
            Self::Map(entry) => {
                let value = Self::of_field(&entry.map_entry_value_field());
                (key(&entry.map_entry_key_field().kind(), name), value)
            }
            // A well-known type stands in `value`, in the form of its own.
            Self::Any if name == "value" => (Identity::Name(name), Self::Free),
            Self::Any => (Identity::Name(Cow::Owned(text::snake_case(&name))), Self::Any),
            Self::List(_) | Self::Free => (Identity::Name(name), Self::Free),
        }
    }
}

/// The key of a map that a text means.
fn key<'de>(kind: &Kind, text: Cow<'de, str>) -> Identity<'de> {
    match kind {
        Kind::String | Kind::Bool => Identity::Name(text),
        _ => match text.parse() {
            Ok(number) => Identity::Number(number),
            Err(_) => Identity::Name(text),
        },
    }
}

/// The members of one object. Few are compared one by one; many are hashed, so that no body makes it slow.
#[derive(Debug, Default)]
pub(crate) struct Seen<'de> {
    few: Vec<Identity<'de>>,
    many: HashSet<Identity<'de>>,
}

impl<'de> Seen<'de> {
    /// How many members are few.
    const FEW: usize = 16;

    /// Whether the member is new.
    pub(crate) fn insert(&mut self, member: Identity<'de>) -> bool {
        if self.many.is_empty() && self.few.len() < Self::FEW {
            let is_new = !self.few.contains(&member);
            self.few.push(member);
            return is_new;
        }
        self.many.extend(self.few.drain(..));
        self.many.insert(member)
    }
}
