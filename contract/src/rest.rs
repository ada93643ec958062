//! REST bindings (`google.api.http`): the method and path of an RPC, and the sources of its request fields.

mod field_path;
pub mod template;

use std::fmt;

use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor};

use crate::options::string;

pub use self::{
    field_path::{FieldPath, Spelling, field},
    template::{Segment, Template, TemplateError, Variable},
};

/// The methods with a field of their own in `google.api.HttpRule`.
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The path of the edge's health endpoint, reserved in contracts.
pub const HEALTH_PATH: &str = "/health";

/// Methods with a fixed meaning in HTTP (RFC 9110, section 9.3) or at the edge.
const RESERVED_METHODS: [&str; 3] = ["CONNECT", "OPTIONS", "TRACE"];

/// The messages with a string form, valid in a path or a query.
pub const TEXT_MESSAGES: [&str; 12] = [
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
    "google.protobuf.DoubleValue",
    "google.protobuf.FloatValue",
    "google.protobuf.Int64Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.Int32Value",
    "google.protobuf.UInt32Value",
    "google.protobuf.BoolValue",
    "google.protobuf.StringValue",
    "google.protobuf.BytesValue",
];

/// One REST binding of an RPC.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The HTTP method, in upper case.
    pub method: String,
    /// The path template.
    pub template: Template,
    /// The fields of the path variables, in order.
    pub variables: Vec<FieldPath>,
    /// The mapping of the request body.
    pub body: BodyMapping,
}

/// The mapping of a request body to fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyMapping {
    /// No body.
    Nothing,
    /// All fields that are not path variables.
    Whole,
    /// One field.
    Field(FieldDescriptor),
}

impl Binding {
    /// Reads one `google.api.HttpRule` for an RPC with this request message, without additional bindings.
    ///
    /// # Errors
    /// The error, to follow the RPC's name.
    pub(crate) fn read(rule: &DynamicMessage, input: &MessageDescriptor) -> Result<Self, String> {
        let (method, path) = pattern(rule).ok_or("has a REST binding without method and path")?;
        if !is_method(&method) {
            return Err(format!(
                "names the method `{method}`; a custom method has only the letters A-Z, and is not one of {}",
                RESERVED_METHODS.join(", ")
            ));
        }
        let template: Template = path.parse().map_err(|error| format!("the REST path `{path}` {error}"))?;
        let variables = template
            .variables
            .iter()
            .map(|variable| variable_field(input, &variable.field))
            .collect::<Result<_, _>>()?;
        let body = body(&string(rule, "body"), input)?;
        if !string(rule, "response_body").is_empty() {
            let advice = "return the resource itself instead; Envoy's transcoder rejects a contract that uses it";
            return Err(format!("uses `response_body`: {advice}"));
        }
        let binding = Self { method, template, variables, body };
        if binding.is_safe() && binding.body != BodyMapping::Nothing {
            let method = &binding.method;
            return Err(format!(
                "has a body on a {method}, which cannot have one; omit `body`, so that the fields are in the query"
            ));
        }
        Ok(binding)
    }

    /// Whether the method is safe (RFC 9110, section 9.2.1): clients and caches may retry it.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        ["GET", "HEAD"].contains(&self.method.as_str())
    }

    /// Whether the path matches a reserved path of the edge.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        let health = HEALTH_PATH.trim_start_matches('/').split('/').map(|text| Segment::Literal(text.to_owned()));
        self.template.overlaps(&Template { segments: health.collect(), variables: Vec::new(), verb: None })
    }

    /// Whether some request matches both, and neither is more specific.
    #[must_use]
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        self.method == other.method && self.template.is_ambiguous_with(&other.template)
    }

    /// Whether the paths overlap so that one receives requests of the other: both match a path with the same method, or one
    /// is a custom verb on the other's path, which shadows all other methods. A GET binding also serves HEAD.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let is_same_method = self.method == other.method || (self.is_safe() && other.is_safe());
        let is_verb_on_other = self.template.verb != other.template.verb;
        (is_same_method || is_verb_on_other) && self.template.overlaps(&other.template)
    }
}

/// The form in metrics and logs: `GET /v1/users/{id}`.
impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.template)
    }
}

/// Whether a value of the field, or one item of a list, has a string form.
#[must_use]
pub fn is_text(field: &FieldDescriptor) -> bool {
    !field.is_map() && field.kind().as_message().is_none_or(|message| TEXT_MESSAGES.contains(&message.full_name()))
}

fn pattern(rule: &DynamicMessage) -> Option<(String, String)> {
    if let Some(method) = METHODS.into_iter().find(|method| rule.has_field_by_name(method)) {
        return Some((method.to_uppercase(), string(rule, method)));
    }
    let custom = rule.get_field_by_name("custom").filter(|_| rule.has_field_by_name("custom"))?;
    let custom = custom.as_message()?;
    Some((string(custom, "kind"), string(custom, "path")))
}

/// Whether a binding can have this method. Methods are case-sensitive, and registered ones are in upper case
/// (RFC 9110, section 9.1).
fn is_method(method: &str) -> bool {
    !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase()) && !RESERVED_METHODS.contains(&method)
}

fn variable_field(input: &MessageDescriptor, name: &str) -> Result<FieldPath, String> {
    let path = FieldPath::resolve(input, name, Spelling::Proto)
        .ok_or_else(|| format!("has the path variable `{name}`, which is not a field of the request"))?;
    if path.leaf().is_list() || !is_text(path.leaf()) {
        return Err(format!("has the path variable `{name}`, whose field is not a single value"));
    }
    Ok(path)
}

fn body(name: &str, input: &MessageDescriptor) -> Result<BodyMapping, String> {
    match name {
        "" => Ok(BodyMapping::Nothing),
        "*" => Ok(BodyMapping::Whole),
        name => input
            .get_field_by_name(name)
            .map(BodyMapping::Field)
            .ok_or_else(|| format!("maps its body to the unknown field `{name}`")),
    }
}
