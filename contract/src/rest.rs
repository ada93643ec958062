//! REST bindings (`google.api.http`): which method and path reach an RPC, and where the fields of its message come from.

mod field_path;
pub mod template;

use std::fmt;

use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor};

pub use self::{
    field_path::{FieldPath, Spelling, field},
    template::{Segment, Template, TemplateError, Variable},
};

/// The methods that a binding names with a field of their own.
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The path that the edge answers by itself; no contract may have it.
pub const HEALTH_PATH: &str = "/health";

/// Methods that HTTP and the edge give a meaning of their own (RFC 9110, section 9.3).
const RESERVED_METHODS: [&str; 3] = ["CONNECT", "OPTIONS", "TRACE"];

/// The messages that can be written as plain text, in a path or a query.
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

/// One REST call that reaches an RPC.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The HTTP method, in capitals.
    pub method: String,
    /// The path.
    pub template: Template,
    /// The fields that the variables of the path fill, in their order.
    pub variables: Vec<FieldPath>,
    /// What the body of the request fills.
    pub body: Body,
}

/// What the body of a request fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    Nothing,
    /// Every field that the path does not fill.
    Whole,
    /// One field.
    Field(FieldDescriptor),
}

impl Binding {
    /// Reads one `google.api.HttpRule` for an RPC with this request message; its additional bindings are not looked at.
    ///
    /// # Errors
    /// What is wrong with it, to be said after the RPC's name.
    pub(crate) fn read(rule: &DynamicMessage, input: &MessageDescriptor) -> Result<Self, String> {
        let (method, path) = pattern(rule).ok_or("has a REST binding without method and path")?;
        if !is_method(&method) {
            return Err(format!(
                "names the method `{method}`; a custom one has the letters A-Z alone, and is none of {}",
                RESERVED_METHODS.join(", ")
            ));
        }
        let template: Template = path.parse().map_err(|error| format!("the REST path `{path}` {error}"))?;
        let variables =
            template.variables.iter().map(|variable| bound(input, &variable.field)).collect::<Result<_, _>>()?;
        let body = body(&text(rule, "body"), input)?;
        if !text(rule, "response_body").is_empty() {
            let advice = "answer the resource itself instead; Envoy's transcoder refuses a whole contract that uses it";
            return Err(format!("uses `response_body`: {advice}"));
        }
        let binding = Self { method, template, variables, body };
        if binding.is_read() && binding.body != Body::Nothing {
            let method = &binding.method;
            return Err(format!("has a body on a {method}, which has none; bind its fields to the query"));
        }
        Ok(binding)
    }

    /// Whether the method only reads, by HTTP's own definition: clients and caches send it again at will.
    #[must_use]
    pub fn is_read(&self) -> bool {
        ["GET", "HEAD"].contains(&self.method.as_str())
    }

    /// Whether the path is one that the edge answers by itself.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        let health = HEALTH_PATH.trim_start_matches('/').split('/').map(|text| Segment::Literal(text.to_owned()));
        self.template.overlaps(&Template { segments: health.collect(), variables: Vec::new(), verb: None })
    }

    /// Whether some request matches both, and neither is the more specific one for it.
    #[must_use]
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        self.method == other.method && self.template.is_ambiguous_with(&other.template)
    }

    /// Whether one takes requests from the other, whichever is the more specific: both match a path with the same method,
    /// or the path of one is a custom verb on the other's, which keeps every other method from it. GET answers HEAD too.
    #[must_use]
    pub fn takes_from(&self, other: &Self) -> bool {
        let is_same_method = self.method == other.method || (self.is_read() && other.is_read());
        let is_verb_on_other = self.template.verb != other.template.verb;
        (is_same_method || is_verb_on_other) && self.template.overlaps(&other.template)
    }
}

/// As metrics and logs name it: `GET /v1/users/{id}`.
impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.template)
    }
}

/// Whether a value of the field, or one item of a list, can be written as text.
#[must_use]
pub fn is_text(field: &FieldDescriptor) -> bool {
    !field.is_map() && field.kind().as_message().is_none_or(|message| TEXT_MESSAGES.contains(&message.full_name()))
}

fn pattern(rule: &DynamicMessage) -> Option<(String, String)> {
    if let Some(method) = METHODS.into_iter().find(|method| rule.has_field_by_name(method)) {
        return Some((method.to_uppercase(), text(rule, method)));
    }
    let custom = rule.get_field_by_name("custom").filter(|_| rule.has_field_by_name("custom"))?;
    let custom = custom.as_message()?;
    Some((text(custom, "kind"), text(custom, "path")))
}

/// Whether a binding can have this method. Methods are case-sensitive, and those that are registered are in capitals
/// (RFC 9110, section 9.1).
fn is_method(method: &str) -> bool {
    !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase()) && !RESERVED_METHODS.contains(&method)
}

fn bound(input: &MessageDescriptor, name: &str) -> Result<FieldPath, String> {
    let path = FieldPath::resolve(input, name, Spelling::Proto)
        .ok_or_else(|| format!("fills the field `{name}` from the path, which is not there"))?;
    if path.leaf().is_list() || !is_text(path.leaf()) {
        return Err(format!("fills the field `{name}` from the path, which is no single value"));
    }
    Ok(path)
}

fn body(name: &str, input: &MessageDescriptor) -> Result<Body, String> {
    match name {
        "" => Ok(Body::Nothing),
        "*" => Ok(Body::Whole),
        name => input
            .get_field_by_name(name)
            .map(Body::Field)
            .ok_or_else(|| format!("takes its body into the unknown field `{name}`")),
    }
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
