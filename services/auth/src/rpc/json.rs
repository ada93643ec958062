//! JSON of a form that this contract does not define, in messages.

use prost_types::{ListValue, Struct, Value as ProtoValue, value::Kind};
use serde_json::Value;

/// A JSON object as a message; empty for other values.
pub(super) fn to_struct(value: Value) -> Struct {
    match value {
        Value::Object(members) => {
            Struct { fields: members.into_iter().map(|(name, value)| (name, to_proto(value))).collect() }
        }
        _ => Struct::default(),
    }
}

fn to_proto(value: Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(to_proto).collect() }),
        object @ Value::Object(_) => Kind::StructValue(to_struct(object)),
    };
    ProtoValue { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_has_its_members() {
        let message = to_struct(json!({"a": null, "b": [true, "x", {"c": 1.5}]}));
        let kind = |name: &str| message.fields[name].kind.clone().unwrap();
        assert_eq!(kind("a"), Kind::NullValue(0));
        let Kind::ListValue(ListValue { values }) = kind("b") else { panic!("{message:?}") };
        let Some(Kind::StructValue(inner)) = values[2].kind.clone() else { panic!("{values:?}") };
        assert_eq!(inner.fields["c"].kind, Some(Kind::NumberValue(1.5)));
        assert_eq!((values.len(), to_struct(json!([]))), (3, Struct::default()));
    }
}
