//! Query parameters into the fields of a request.
//!
//! A parameter is named by the path of its field, in JSON or proto names: `pageSize`, `filter.name`. A repeated field is given
//! once for each item. Parameters that would be ignored are errors: an unknown one, one for a field that the path or the
//! body sets, a duplicate single field in either spelling.

use drystone::status::quote;
use drystone_mesh::error::{Error, Result};
use prost_reflect::{DynamicMessage, Value};

use crate::{
    routing::{
        percent::{self, UriComponent},
        route::{BodyMapping, Route},
    },
    transcode::{
        field::{FieldPath, Spelling},
        json, text,
    },
};

/// Sets the fields of `request` that the query gives.
///
/// # Errors
/// `INVALID_REQUEST`, which names the parameter.
pub(crate) fn fill(route: &Route, request: &mut DynamicMessage, query: &str) -> Result<()> {
    let mut given: Vec<FieldPath> = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let decode = |text| percent::decode(text, UriComponent::Query);
        let name = decode(name).map_err(|error| invalid(name, error.to_string()))?;
        let value = decode(value).map_err(|error| invalid(&name, error.to_string()))?;
        let field = resolve(route, &name)?;
        let is_next_item = field.leaf().is_list() && given.contains(&field);
        if !is_next_item {
            // `maybe` and `maybe.value` are duplicates too: one contains the other.
            if given.iter().any(|other| field.is_within(other) || other.is_within(&field)) {
                return Err(invalid(&name, "is given twice; send it once"));
            }
            given.push(field.clone());
        }
        set(&field, request, &name, &value)?;
    }
    Ok(())
}

fn resolve(route: &Route, name: &str) -> Result<FieldPath> {
    if route.body == BodyMapping::Whole {
        return Err(invalid(name, "is not known here; this call takes its fields in the body"));
    }
    let field = FieldPath::resolve(&route.input, name, Spelling::Json)
        .ok_or_else(|| invalid(name, json::unknown(&route.input)))?;
    if route.body_field().is_some_and(|body| field.starts_with(body)) {
        return Err(invalid(name, "belongs into the body"));
    }
    if route.variables.iter().any(|variable| field.is_within(variable) || variable.is_within(&field)) {
        return Err(invalid(name, "is given by the path"));
    }
    if !text::is_writable(field.leaf()) {
        return Err(invalid(name, "cannot be given as a query parameter; name the field inside it"));
    }
    Ok(field)
}

fn set(field: &FieldPath, request: &mut DynamicMessage, name: &str, value: &str) -> Result<()> {
    let leaf = field.leaf();
    let parsed = text::parse(leaf, value).ok_or_else(|| invalid(name, format!("must be {}", text::expected(leaf))))?;
    if let Some(other) = field.conflicting_oneof_member(request) {
        return Err(invalid(name, format!("cannot be given together with {}", other.json_name())));
    }
    // The parents are messages, or `resolve` would have failed.
    let Some(parent) = field.parent(request) else { return Ok(()) };
    if leaf.is_list() {
        if let Value::List(items) = parent.get_field_mut(leaf) {
            items.push(parsed);
        }
        return Ok(());
    }
    parent.set_field(leaf, parsed);
    Ok(())
}

fn invalid(name: &str, description: impl Into<String>) -> Error {
    Error::invalid_field(quote(name), description)
}
