//! Paths to fields of a message, such as `user.id`.

use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

/// A path to a field: `user.id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath {
    /// The parent messages, outermost first.
    parents: Vec<FieldDescriptor>,
    /// The field itself.
    leaf: FieldDescriptor,
}

/// The spelling of field names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As in the contract: `display_name`.
    Proto,
    /// As in JSON, `displayName`, or as in the contract.
    Json,
}

impl FieldPath {
    /// Resolves `path`; `None` if a field is unknown, or a parent is not a singular message.
    #[must_use]
    pub fn resolve(message: &MessageDescriptor, path: &str, spelling: Spelling) -> Option<Self> {
        let mut message = message.clone();
        let mut parents = Vec::new();
        let mut steps = path.split('.').peekable();
        while let Some(step) = steps.next() {
            let field = field(&message, step, spelling)?;
            if steps.peek().is_none() {
                return Some(Self { parents, leaf: field });
            }
            match field.kind() {
                Kind::Message(inner) if field.cardinality() != Cardinality::Repeated => message = inner,
                _ => return None,
            }
            parents.push(field);
        }
        None
    }

    /// The field itself.
    #[must_use]
    pub fn leaf(&self) -> &FieldDescriptor {
        &self.leaf
    }

    /// The fields of the path, outermost first.
    pub fn steps(&self) -> impl Iterator<Item = &FieldDescriptor> {
        self.parents.iter().chain([&self.leaf])
    }

    /// Whether this is `other` or inside it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let mut own = self.steps();
        other.steps().all(|step| own.next() == Some(step))
    }

    /// Whether the first field of the path is `field`.
    #[must_use]
    pub fn starts_with(&self, field: &FieldDescriptor) -> bool {
        self.steps().next() == Some(field)
    }

    /// The oneof member that is set in `message` and would be cleared by setting this field.
    #[must_use]
    pub fn conflicting_oneof_member(&self, message: &DynamicMessage) -> Option<FieldDescriptor> {
        conflicting_member(self.steps(), message)
    }

    /// The message that contains the field, created if absent.
    pub fn parent<'m>(&self, message: &'m mut DynamicMessage) -> Option<&'m mut DynamicMessage> {
        self.parents.iter().try_fold(message, |message, field| message.get_field_mut(field).as_message_mut())
    }

    /// Sets the field.
    pub fn set(&self, message: &mut DynamicMessage, value: Value) {
        // Always `Some`: `resolve` checks that the parents are messages.
        if let Some(parent) = self.parent(message) {
            parent.set_field(&self.leaf, value);
        }
    }
}

fn conflicting_member<'f>(
    mut steps: impl Iterator<Item = &'f FieldDescriptor>,
    message: &DynamicMessage,
) -> Option<FieldDescriptor> {
    let step = steps.next()?;
    let mut others = step.containing_oneof().into_iter().flat_map(|oneof| oneof.fields().collect::<Vec<_>>());
    if let Some(conflict) = others.find(|other| other != step && message.has_field(other)) {
        return Some(conflict);
    }
    // An absent message has no set members.
    if message.has_field(step) { conflicting_member(steps, message.get_field(step).as_message()?) } else { None }
}

/// The field of this name.
#[must_use]
pub fn field(message: &MessageDescriptor, name: &str, spelling: Spelling) -> Option<FieldDescriptor> {
    match spelling {
        Spelling::Proto => message.get_field_by_name(name),
        Spelling::Json => message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name)),
    }
}
