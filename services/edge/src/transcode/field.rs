//! Field paths in the spelling of REST clients.

pub(crate) use drystone::contract::rest::{FieldPath, Spelling, field};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// A field path of the contract in JSON names, and without the field that the body maps to. Text that is not a field path
/// is returned unchanged.
///
/// Indexes and keys are understood as validators write them: `items[3].display_name` and `labels["a.b"]`.
pub(crate) fn for_client(message: &MessageDescriptor, body: Option<&FieldDescriptor>, path: &str) -> String {
    let mut renamed = String::with_capacity(path.len());
    let mut message = Some(message.clone());
    let mut rest = path;
    let mut is_first = true;
    loop {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let field = message.as_ref().and_then(|message| message.get_field_by_name(name));
        let Some(field) = field else {
            renamed.push_str(rest);
            return renamed;
        };
        let index = index_length(after);
        let (index, after) = after.split_at(index);
        if !(is_first && body == Some(&field) && after.starts_with('.')) {
            renamed.push_str(field.json_name());
            renamed.push_str(index);
            if after.starts_with('.') {
                renamed.push('.');
            }
        }
        let Some(next) = after.strip_prefix('.') else {
            renamed.push_str(after);
            return renamed;
        };
        message = match field.kind() {
            Kind::Message(entry) if field.is_map() => match entry.map_entry_value_field().kind() {
                Kind::Message(value) => Some(value),
                _ => None,
            },
            Kind::Message(inner) => Some(inner),
            _ => None,
        };
        rest = next;
        is_first = false;
    }
}

/// The length of the `[...]` that `text` begins with; a quoted key may hold any character.
fn index_length(text: &str) -> usize {
    if !text.starts_with('[') {
        return 0;
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ']' if !is_quoted => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use drystone_tests::fixture;

    #[test]
    fn paths_resolve_through_single_messages_only() {
        let message = fixture::message("Everything");
        let resolve =
            |path| FieldPath::resolve(&message, path, Spelling::Json).map(|path| path.leaf().name().to_owned());
        assert_eq!(resolve("nested.displayName").as_deref(), Some("display_name"));
        assert_eq!(resolve("nested.display_name").as_deref(), Some("display_name"));
        for bad in ["", ".", "nested.", "nope", "nested.nope", "texts.x", "children.displayName", "labels.key"] {
            assert_eq!(resolve(bad), None, "{bad}");
        }
        assert!(FieldPath::resolve(&message, "nested.displayName", Spelling::Proto).is_none());
    }

    #[test]
    fn paths_are_shown_in_json_names() {
        let message = fixture::message("Everything");
        let body = message.get_field_by_name("nested");
        let cases = [
            ("nested.display_name", "displayName"),
            ("nested", "nested"),
            ("big_number", "bigNumber"),
            ("children[3].display_name", "children[3].displayName"),
            ("labels[\"a.b]\"]", "labels[\"a.b]\"]"),
            ("by_name[\"x\"].display_name", "byName[\"x\"].displayName"),
            ("no_such.display_name", "no_such.display_name"),
            ("labels[", "labels["),
            ("", ""),
        ];
        for (given, expected) in cases {
            assert_eq!(for_client(&message, body.as_ref(), given), expected, "{given}");
        }
        assert_eq!(for_client(&message, None, "nested.display_name"), "nested.displayName");
    }
}
