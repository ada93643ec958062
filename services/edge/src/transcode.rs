//! From an HTTP request to the message of its RPC, as `google/api/http.proto` defines it: the body first, then the
//! path, then the query. The path says which resource is meant, so it wins over the body.
//!
//! | file | what |
//! |---|---|
//! | `json.rs`, `tracked.rs`, `shape.rs` | ProtoJSON, with the path of the member that is wrong |
//! | `query.rs`, `text.rs`, `field.rs` | query parameters and path variables |
//! | `mask.rs` | the update mask of a PATCH |

pub(crate) mod field;
pub(crate) mod json;
pub(crate) mod mask;
pub(crate) mod query;
pub(crate) mod shape;
pub(crate) mod text;
pub(crate) mod tracked;

use drystone_mesh::error::{Error, Reason, Result};
use prost_reflect::{DynamicMessage, FieldDescriptor};

use crate::routing::{
    percent::{self, Rules},
    route::{BodyMapping, Route},
};

/// The message that a request stands for.
///
/// # Errors
/// `MALFORMED_BODY` or `INVALID_REQUEST`, which names the field as the client spells it.
pub(crate) fn request(route: &Route, path: &str, query: Option<&str>, body: &[u8]) -> Result<DynamicMessage> {
    let mut message = from_body(route, body)?;
    for ((variable, text), field) in route.template.captures(path).zip(&route.variables) {
        let name = || client_name(route, field.steps());
        let rules = if variable.is_one_segment { Rules::Segment } else { Rules::Segments };
        let text = percent::decode(text, rules).map_err(|error| Error::invalid_field(name(), error.to_string()))?;
        let value = text::parse(field.leaf(), &text)
            .ok_or_else(|| Error::invalid_field(name(), format!("must be {}", text::expected(field.leaf()))))?;
        field.set(&mut message, value);
    }
    if let Some(query) = query {
        query::fill(route, &mut message, query)?;
    }
    if let Some(rule) = &route.mask {
        rule.infer(&mut message, body);
    }
    Ok(message)
}

fn from_body(route: &Route, body: &[u8]) -> Result<DynamicMessage> {
    match &route.body {
        // No body is an empty one: `POST /v1/auth/logout` needs none.
        BodyMapping::Whole if !body.is_empty() => return json::read(&route.input, body),
        BodyMapping::Field(field) if !body.is_empty() => {
            let mut message = DynamicMessage::new(route.input.clone());
            json::read_field(&mut message, field, body)?;
            return Ok(message);
        }
        BodyMapping::Nothing if !says_nothing(body) => {
            let message = "this call takes no body; its fields go into the path and the query";
            return Err(Error::new(Reason::MalformedBody, message));
        }
        _ => {}
    }
    Ok(DynamicMessage::new(route.input.clone()))
}

/// Whether a body is empty, or an object without members, which some clients send with everything.
fn says_nothing(body: &[u8]) -> bool {
    let mut signs = body.iter().filter(|byte| !byte.is_ascii_whitespace());
    matches!((signs.next(), signs.next(), signs.next()), (None, ..) | (Some(b'{'), Some(b'}'), None))
}

/// A field as the client knows it: in JSON's spelling, without the field that the body stands for.
fn client_name<'f>(route: &Route, steps: impl Iterator<Item = &'f FieldDescriptor>) -> String {
    let names: Vec<&str> = steps.map(FieldDescriptor::name).collect();
    crate::transcode::field::for_client(&route.input, route.body_field(), &names.join("."))
}
