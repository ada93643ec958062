//! Fields of a message that are named by a path, such as `user.id`.

use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

/// A field, and the way to it: `user.id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath {
    /// The messages on the way, outermost first.
    parents: Vec<FieldDescriptor>,
    /// The field itself.
    leaf: FieldDescriptor,
}

/// How a path's steps are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As in the contract: `display_name`.
    Proto,
    /// As in JSON, `displayName`, or as in the contract.
    Json,
}

impl FieldPath {
    /// The field that `path` leads to, if every step of it is there and leads through single messages.
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

    /// The steps, outermost first.
    pub fn steps(&self) -> impl Iterator<Item = &FieldDescriptor> {
        self.parents.iter().chain([&self.leaf])
    }

    /// Whether this is `other` or lies inside it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let mut own = self.steps();
        other.steps().all(|step| own.next() == Some(step))
    }

    /// Whether this begins with that field of the outermost message.
    #[must_use]
    pub fn begins_with(&self, field: &FieldDescriptor) -> bool {
        self.steps().next() == Some(field)
    }

    /// The member of a oneof that is set in `message` and would be unset by setting this.
    #[must_use]
    pub fn rival(&self, message: &DynamicMessage) -> Option<FieldDescriptor> {
        rival(self.steps(), message)
    }

    /// The message that holds the field, made where it is not there yet.
    pub fn parent<'m>(&self, message: &'m mut DynamicMessage) -> Option<&'m mut DynamicMessage> {
        self.parents.iter().try_fold(message, |message, field| message.get_field_mut(field).as_message_mut())
    }

    /// Sets the field.
    pub fn set(&self, message: &mut DynamicMessage, value: Value) {
        // The parents are messages, or the path would not have been made.
        if let Some(parent) = self.parent(message) {
            parent.set_field(&self.leaf, value);
        }
    }
}

fn rival<'f>(
    mut steps: impl Iterator<Item = &'f FieldDescriptor>,
    message: &DynamicMessage,
) -> Option<FieldDescriptor> {
    let step = steps.next()?;
    let mut others = step.containing_oneof().into_iter().flat_map(|oneof| oneof.fields().collect::<Vec<_>>());
    if let Some(rival) = others.find(|other| other != step && message.has_field(other)) {
        return Some(rival);
    }
    // What is not there yet has no members.
    if message.has_field(step) { rival(steps, message.get_field(step).as_message()?) } else { None }
}

/// The field of this name.
#[must_use]
pub fn field(message: &MessageDescriptor, name: &str, spelling: Spelling) -> Option<FieldDescriptor> {
    match spelling {
        Spelling::Proto => message.get_field_by_name(name),
        Spelling::Json => message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name)),
    }
}
