//! The update mask of a PATCH whose client sent none: the fields that stand in its body.

use std::{collections::HashSet, sync::Arc};

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::transcode::{
    field::{FieldPath, Spelling, field},
    json,
    text::FIELD_MASK,
};

/// The field that holds the mask, in every update there is (AIP-134).
const NAME: &str = "update_mask";

/// Values of `google.api.FieldBehavior` that a client cannot change: OUTPUT_ONLY and IDENTIFIER.
const NOT_FOR_CLIENTS: [i32; 2] = [3, 8];

/// How the mask of one route is made up.
pub(crate) struct MaskRule {
    /// Where the mask goes.
    mask: FieldDescriptor,
    mask_message: MessageDescriptor,
    /// What the body holds.
    body: MessageDescriptor,
    /// Fields inside the body that the path fills: they say which thing is meant, not what to change.
    from_path: HashSet<String>,
    /// Fields, by full name, that the server alone sets; in requests they are ignored.
    output_only: Arc<HashSet<String>>,
}

impl MaskRule {
    /// The rule for a request whose body is `body`, if it has a mask at all. `output_only` is what [`output_only`]
    /// answers.
    pub(crate) fn of(
        input: &MessageDescriptor,
        body: &FieldDescriptor,
        variables: &[FieldPath],
        output_only: &Arc<HashSet<String>>,
    ) -> Option<Self> {
        let mask = input.get_field_by_name(NAME)?;
        let mask_message = mask.kind().as_message().filter(|kind| kind.full_name() == FIELD_MASK)?.clone();
        let message = body.kind().as_message().filter(|_| !body.is_list() && !body.is_map())?.clone();
        let from_path = variables.iter().filter(|variable| variable.starts_with(body)).map(|variable| {
            let steps: Vec<&str> = variable.steps().skip(1).map(FieldDescriptor::name).collect();
            steps.join(".")
        });
        Some(Self {
            mask,
            mask_message,
            body: message,
            from_path: from_path.collect(),
            output_only: Arc::clone(output_only),
        })
    }

    /// Fills the mask from the body, unless the client sent one.
    pub(crate) fn infer(&self, request: &mut DynamicMessage, body: &[u8]) {
        if request.has_field(&self.mask) {
            return;
        }
        // The body has been read once, so this cannot fail; a presence that messages do not keep is looked up here.
        let Ok(body) = serde_json::from_slice(body) else { return };
        let mut paths = Vec::new();
        self.collect(&self.body, &body, "", &mut paths);
        if !paths.is_empty() {
            let mut mask = DynamicMessage::new(self.mask_message.clone());
            mask.set_field_by_number(1, Value::List(paths.into_iter().map(Value::String).collect()));
            request.set_field(&self.mask, Value::Message(mask));
        }
    }

    fn collect(&self, message: &MessageDescriptor, value: &serde_json::Value, prefix: &str, paths: &mut Vec<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let Some(field) = field(message, name, Spelling::Json) else { continue };
            let path = format!("{prefix}{}", field.name());
            if self.output_only.contains(field.full_name()) || self.from_path.contains(&path) {
                continue;
            }
            match field.kind() {
                Kind::Message(inner) if is_plain(&field, &inner) && has_members(value) => {
                    self.collect(&inner, value, &format!("{path}."), paths);
                }
                _ => paths.push(path),
            }
        }
    }
}

/// Whether the fields of a message can be changed one by one.
fn is_plain(field: &FieldDescriptor, message: &MessageDescriptor) -> bool {
    !field.is_list() && !field.is_map() && !json::is_well_known(message)
}

fn has_members(value: &serde_json::Value) -> bool {
    value.as_object().is_some_and(|members| !members.is_empty())
}

/// The full names of all fields that the server alone sets.
pub(crate) fn output_only(pool: &DescriptorPool) -> HashSet<String> {
    let Some(behavior) = pool.get_extension_by_name("google.api.field_behavior") else { return HashSet::new() };
    let is_for_server = |field: &FieldDescriptor| {
        let options = field.options();
        let behaviors = options.get_extension(&behavior);
        let mut numbers = behaviors.as_list().unwrap_or_default().iter().filter_map(Value::as_enum_number);
        numbers.any(|number| NOT_FOR_CLIENTS.contains(&number))
    };
    let fields = pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    fields.filter(is_for_server).map(|field| field.full_name().to_owned()).collect()
}
