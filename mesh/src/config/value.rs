//! Deserialization of merged values, with errors that carry the path of the key.

use std::fmt::{self, Display};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor},
    forward_to_deserialize_any,
};
use serde_json::{Map, Number, Value, map};

/// A table of values by key.
pub type Dict = Map<String, Value>;

/// Why values do not fit a type, and at which key.
#[derive(Debug)]
pub(super) struct ValueError {
    /// The keys from the top of the configuration down.
    pub(super) path: Vec<String>,
    pub(super) kind: ErrorKind,
}

#[derive(Debug)]
pub(super) enum ErrorKind {
    UnknownKey { expected: &'static [&'static str] },
    MissingKey(&'static str),
    InvalidType { actual: &'static str, expected: String },
    InvalidValue { expected: String },
    UnknownVariant { actual: String, expected: &'static [&'static str] },
    Other(String),
}

/// The value at a path, if there is one.
pub(super) fn get<'a>(values: &'a Dict, path: &[impl AsRef<str>]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(values.get(first.as_ref())?, |value, key| value.as_object()?.get(key.as_ref()))
}

/// Sets the value at a path, and makes the tables on the way to it.
pub(super) fn nest(path: &str, value: Value) -> Dict {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = if rest.is_empty() { value } else { nest(rest, value).into() };
    Dict::from_iter([(first.to_owned(), value)])
}

/// Puts `overrides` over `values`: tables are merged, everything else is replaced.
pub(super) fn merge(values: &mut Dict, overrides: &Dict) {
    for (key, value) in overrides {
        match (values.get_mut(key), value) {
            (Some(Value::Object(table)), Value::Object(overrides)) => merge(table, overrides),
            _ => drop(values.insert(key.clone(), value.clone())),
        }
    }
}

/// The same values without those that are not set, which TOML cannot express.
pub(super) fn without_null(value: Value) -> Value {
    match value {
        Value::Object(table) => {
            let set = table.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(key, value)| (key, without_null(value))).collect())
        }
        other => other,
    }
}

/// A value of a TOML document. A date becomes a string: no key has that type.
pub(super) fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        // `nan` and `inf` have no other form, and no key has such a value.
        toml::Value::Float(number) => Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(values) => values.into_iter().map(from_toml).collect::<Vec<_>>().into(),
        toml::Value::Table(table) => table_from_toml(table).into(),
    }
}

pub(super) fn table_from_toml(table: toml::Table) -> Dict {
    table.into_iter().map(|(key, value)| (key, from_toml(value))).collect()
}

/// Reads a type from a value.
pub(super) struct ValueDeserializer<'a>(pub(super) &'a Value);

impl<'de> Deserializer<'de> for ValueDeserializer<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(values) => visitor.visit_seq(ListAccess(values.iter())),
            Value::Object(table) => visitor.visit_map(TableAccess { rest: table.iter(), current: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            // Refused with what it is.
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct ListAccess<'a>(std::slice::Iter<'a, Value>);

impl<'a> SeqAccess<'a> for ListAccess<'a> {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, ValueError> {
        self.0.next().map(|value| seed.deserialize(ValueDeserializer(value))).transpose()
    }
}

struct TableAccess<'a> {
    rest: map::Iter<'a>,
    current: Option<(&'a String, &'a Value)>,
}

impl<'a> MapAccess<'a> for TableAccess<'a> {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, ValueError> {
        self.current = self.rest.next();
        let Some((key, _)) = self.current else { return Ok(None) };
        seed.deserialize(key.as_str().into_deserializer()).map(Some).map_err(|error: ValueError| error.under(key))
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, ValueError> {
        let Some((key, value)) = self.current else { return Err(de::Error::custom("a value was read before its key")) };
        seed.deserialize(ValueDeserializer(value)).map_err(|error| error.under(key))
    }
}

impl ValueError {
    /// The error, seen from the table that contains `key`.
    pub(super) fn under(mut self, key: &str) -> Self {
        self.path.insert(0, key.to_owned());
        self
    }
}

impl From<ErrorKind> for ValueError {
    fn from(kind: ErrorKind) -> Self {
        Self { path: Vec::new(), kind }
    }
}

impl de::Error for ValueError {
    fn custom<T: Display>(message: T) -> Self {
        ErrorKind::Other(message.to_string()).into()
    }

    fn invalid_type(actual: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let actual = match actual {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Char(_) | Unexpected::Str(_) => "a string",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "something else",
        };
        ErrorKind::InvalidType { actual, expected: expected.to_string() }.into()
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        ErrorKind::InvalidValue { expected: expected.to_string() }.into()
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        ErrorKind::UnknownVariant { actual: variant.to_owned(), expected }.into()
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        ErrorKind::UnknownKey { expected }.into()
    }

    fn missing_field(field: &'static str) -> Self {
        ErrorKind::MissingKey(field).into()
    }
}

/// [`super::ConfigError`] is what is shown.
impl Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.path.join("."), self.kind)
    }
}

impl std::error::Error for ValueError {}
