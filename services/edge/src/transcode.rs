//! From an HTTP request to the message of its RPC, as `google/api/http.proto` defines it: the body first, then the path, then
//! the query. The path identifies the resource, so it overrides the body.
//!
//! | file | what |
//! |---|---|
//! | `json.rs`, `proto_type.rs` | ProtoJSON, with the path of an invalid member |
//! | `query.rs`, `text.rs`, `field.rs` | query parameters and path variables |
//! | `mask.rs` | the update mask of a PATCH |

pub(crate) mod field;
pub(crate) mod json;
pub(crate) mod mask;
pub(crate) mod proto_type;
pub(crate) mod query;
pub(crate) mod text;

use drystone_mesh::error::{Error, Reason, Result};
use prost_reflect::{DynamicMessage, FieldDescriptor};

use crate::{
    routing::{
        percent::{self, UriComponent},
        route::{BodyMapping, Route},
    },
    transcode::proto_type::{GivenFields, Recorder},
};

/// The message of a request.
///
/// # Errors
/// `MALFORMED_BODY` or `INVALID_REQUEST`, which names the field as the client spells it.
pub(crate) fn request(route: &Route, path: &str, query: Option<&str>, body: &[u8]) -> Result<DynamicMessage> {
    let given = GivenFields::default();
    let mut message = read_body(route, body, route.mask.as_ref().map(|_| given.recorder()))?;
    for ((variable, text), field) in route.template.captures(path).zip(&route.variables) {
        let name = || client_name(route, field.steps());
        let component = if variable.is_one_segment { UriComponent::Segment } else { UriComponent::Segments };
        let text = percent::decode(text, component).map_err(|error| Error::invalid_field(name(), error.to_string()))?;
        let value = text::parse(field.leaf(), &text)
            .ok_or_else(|| Error::invalid_field(name(), format!("must be {}", text::expected(field.leaf()))))?;
        field.set(&mut message, value);
    }
    if let Some(query) = query {
        query::fill(route, &mut message, query)?;
    }
    if let Some(rule) = &route.mask {
        rule.infer(&mut message, given.into_inner());
    }
    Ok(message)
}

fn read_body(route: &Route, body: &[u8], recorder: Option<Recorder<'_>>) -> Result<DynamicMessage> {
    match &route.body {
        // A missing body is an empty one: `POST /v1/auth/logout` needs none.
        BodyMapping::Whole if !body.is_empty() => return json::read(&route.input, body, recorder),
        BodyMapping::Field(field) if !body.is_empty() => {
            let mut message = DynamicMessage::new(route.input.clone());
            json::read_field(&mut message, field, body, recorder)?;
            return Ok(message);
        }
        BodyMapping::Nothing if !is_empty(body) => {
            let message = "this call takes no body; its fields go into the path and the query";
            return Err(Error::new(Reason::MalformedBody, message));
        }
        _ => {}
    }
    Ok(DynamicMessage::new(route.input.clone()))
}

/// Whether a body is empty, or an object without members, which some clients send with every request.
fn is_empty(body: &[u8]) -> bool {
    let mut bytes = body.iter().filter(|byte| !byte.is_ascii_whitespace());
    matches!((bytes.next(), bytes.next(), bytes.next()), (None, ..) | (Some(b'{'), Some(b'}'), None))
}

/// The client's name of a field: its JSON name, without the field that the body maps to.
fn client_name<'f>(route: &Route, steps: impl Iterator<Item = &'f FieldDescriptor>) -> String {
    let names: Vec<&str> = steps.map(FieldDescriptor::name).collect();
    crate::transcode::field::for_client(&route.input, route.body_field(), &names.join("."))
}
