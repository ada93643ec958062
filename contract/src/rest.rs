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
        if !is_token(&method) {
            return Err(format!("names the method `{method}`, which HTTP does not have"));
        }
        let template: Template = path.parse().map_err(|error| format!("the REST path `{path}` {error}"))?;
        let variables =
            template.variables.iter().map(|variable| bound(input, &variable.field)).collect::<Result<_, _>>()?;
        let body = body(&text(rule, "body"), input)?;
        if !text(rule, "response_body").is_empty() {
            let advice = "answer the resource itself instead; Envoy's transcoder refuses a whole contract that uses it";
            return Err(format!("uses `response_body`: {advice}"));
        }
        if method == "GET" && body != Body::Nothing {
            return Err("has a body on a GET, which has none; bind its fields to the query".to_owned());
        }
        Ok(Self { method, template, variables, body })
    }

    /// Whether some request matches both, and neither is the more specific one for it.
    #[must_use]
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        self.method == other.method && self.template.is_ambiguous_with(&other.template)
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

/// A method is a token (RFC 9110, section 9.1).
fn is_token(method: &str) -> bool {
    !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
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
