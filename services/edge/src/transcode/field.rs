//! Field paths as REST clients know them.

pub(crate) use drystone::contract::rest::{FieldPath, Spelling, field};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// A field path of the contract as a REST client knows it: in JSON's spelling, and without the field that the body
/// stands for. What is no field path comes back as it is.
///
/// It understands what validators write: `labels["a.b"]` and `items[3].display_name`.
pub(crate) fn for_client(message: &MessageDescriptor, body: Option<&FieldDescriptor>, path: &str) -> String {
    let mut shown = String::with_capacity(path.len());
    let mut message = Some(message.clone());
    let mut rest = path;
    let mut is_first = true;
    loop {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let field = message.as_ref().and_then(|message| message.get_field_by_name(name));
        let Some(field) = field else {
            shown.push_str(rest);
            return shown;
        };
        let index = index_length(after);
        let (index, after) = after.split_at(index);
        if !(is_first && body == Some(&field) && after.starts_with('.')) {
            shown.push_str(field.json_name());
            shown.push_str(index);
            if after.starts_with('.') {
                shown.push('.');
            }
        }
        let Some(next) = after.strip_prefix('.') else {
            shown.push_str(after);
            return shown;
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

/// How long the `[...]` is that `text` begins with; a quoted key may hold any sign.
fn index_length(text: &str) -> usize {
    if !text.starts_with('[') {
        return 0;
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, sign) in text.char_indices() {
        match sign {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ']' if !is_quoted => return at + 1,
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
    fn paths_lead_through_single_messages_only() {
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
    fn clients_see_their_own_spelling() {
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
        for (given, shown) in cases {
            assert_eq!(for_client(&message, body.as_ref(), given), shown, "{given}");
        }
        assert_eq!(for_client(&message, None, "nested.display_name"), "nested.displayName");
    }
}
