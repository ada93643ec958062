//! The update mask of a PATCH whose client sent none: the fields that its body holds.

use std::{collections::HashSet, iter::Peekable, sync::Arc};

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, Value};

use crate::transcode::{field::FieldPath, proto_type::GivenField, text::FIELD_MASK};

/// The field that holds the mask of every update (AIP-134).
const UPDATE_MASK: &str = "update_mask";

/// Values of `google.api.FieldBehavior`.
const OUTPUT_ONLY: i32 = 3;
const IMMUTABLE: i32 = 5;
const IDENTIFIER: i32 = 8;

/// How the mask of one route is inferred.
pub(crate) struct MaskRule {
    /// The field that holds the mask.
    mask: FieldDescriptor,
    mask_message: MessageDescriptor,
    /// Fields inside the body that the path sets: they identify the resource and are not changed.
    from_path: HashSet<String>,
    /// The full names of the fields that no update changes; the mask leaves them out.
    unchangeable: Arc<HashSet<String>>,
}

impl MaskRule {
    /// The rule for a request whose body is the field `body`; `None` if the request has no mask, or if its body is not a
    /// single message. `unchangeable` is the result of [`unchangeable`].
    pub(crate) fn of(
        input: &MessageDescriptor,
        body: &FieldDescriptor,
        variables: &[FieldPath],
        unchangeable: &Arc<HashSet<String>>,
    ) -> Option<Self> {
        let mask = input.get_field_by_name(UPDATE_MASK)?;
        let mask_message = mask.kind().as_message().filter(|kind| kind.full_name() == FIELD_MASK)?.clone();
        body.kind().as_message().filter(|_| !body.is_list() && !body.is_map())?;
        let from_path = variables.iter().filter(|variable| variable.starts_with(body)).map(|variable| {
            let steps: Vec<&str> = variable.steps().skip(1).map(FieldDescriptor::name).collect();
            steps.join(".")
        });
        Some(Self { mask, mask_message, from_path: from_path.collect(), unchangeable: Arc::clone(unchangeable) })
    }

    /// Sets the mask from the fields that the body holds, unless the client sent one.
    pub(crate) fn infer(&self, request: &mut DynamicMessage, given: Vec<GivenField>) {
        if request.has_field(&self.mask) {
            return;
        }
        let mut paths = Vec::new();
        self.collect(&mut given.into_iter().peekable(), 0, "", &mut paths);
        if !paths.is_empty() {
            // The order of JSON members carries no meaning, so that it must not decide which path an error names first.
            paths.sort_unstable();
            let mut mask = DynamicMessage::new(self.mask_message.clone());
            mask.set_field_by_number(1, Value::List(paths.into_iter().map(Value::String).collect()));
            request.set_field(&self.mask, Value::Message(mask));
        }
    }

    /// Collects the paths of the fields at `depth`, or of the fields inside them.
    fn collect(
        &self,
        given: &mut Peekable<impl Iterator<Item = GivenField>>,
        depth: usize,
        prefix: &str,
        paths: &mut Vec<String>,
    ) {
        while let Some(GivenField { field, .. }) = given.next_if(|next| next.depth == depth) {
            let path = format!("{prefix}{}", field.name());
            if self.unchangeable.contains(field.full_name()) || self.from_path.contains(&path) {
                while given.next_if(|next| next.depth > depth).is_some() {}
            } else if given.peek().is_some_and(|next| next.depth > depth) {
                self.collect(given, depth + 1, &format!("{path}."), paths);
            } else {
                paths.push(path);
            }
        }
    }
}

/// The full names of all fields that only the server sets: in requests they are ignored.
pub(crate) fn output_only(pool: &DescriptorPool) -> HashSet<String> {
    with_behavior(pool, &[OUTPUT_ONLY, IDENTIFIER])
}

/// The full names of all fields that an update cannot change, since only the server or the creation sets them. A client may send
/// them back with the resource.
pub(crate) fn unchangeable(pool: &DescriptorPool) -> HashSet<String> {
    with_behavior(pool, &[OUTPUT_ONLY, IMMUTABLE, IDENTIFIER])
}

fn with_behavior(pool: &DescriptorPool, wanted: &[i32]) -> HashSet<String> {
    let Some(behavior) = pool.get_extension_by_name("google.api.field_behavior") else { return HashSet::new() };
    let has_behavior = |field: &FieldDescriptor| {
        let options = field.options();
        let behaviors = options.get_extension(&behavior);
        let mut numbers = behaviors.as_list().unwrap_or_default().iter().filter_map(Value::as_enum_number);
        numbers.any(|number| wanted.contains(&number))
    };
    let fields = pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    fields.filter(has_behavior).map(|field| field.full_name().to_owned()).collect()
}
