//! Query parameters into the fields of a request.
//!
//! A parameter is named by the path of its field, in JSON's spelling or the contract's: `pageSize`, `filter.name`.
//! A repeated field is given once for each item. Whatever would be ignored is refused instead: a parameter that is
//! unknown, one for a field that the path or the body fills, a single field given twice, whichever ways it is spelled.

use drystone_mesh::error::{Error, Result};
use prost_reflect::{DynamicMessage, Value};

use crate::{
    routing::{
        percent::{self, Rules},
        route::{BodyMapping, Route},
    },
    transcode::{
        field::{FieldPath, Spelling},
        json, text,
    },
};

/// Fills `request` from the query.
///
/// # Errors
/// `INVALID_REQUEST` that names the parameter.
pub(crate) fn fill(route: &Route, request: &mut DynamicMessage, query: &str) -> Result<()> {
    let mut given: Vec<FieldPath> = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let decode = |text| percent::decode(text, Rules::Query);
        let name = decode(name).map_err(|error| refuse(name, error.to_string()))?;
        let value = decode(value).map_err(|error| refuse(&name, error.to_string()))?;
        let field = find(route, &name)?;
        let is_next_item = field.leaf().is_list() && given.contains(&field);
        if !is_next_item {
            // One inside the other, as `maybe.value` is inside `maybe`, gives the same thing twice.
            if given.iter().any(|other| field.is_within(other) || other.is_within(&field)) {
                return Err(refuse(&name, "is given twice; send it once"));
            }
            given.push(field.clone());
        }
        put(&field, request, &name, &value)?;
    }
    Ok(())
}

fn find(route: &Route, name: &str) -> Result<FieldPath> {
    if route.body == BodyMapping::Whole {
        return Err(refuse(name, "is not known here; this call takes its fields in the body"));
    }
    let field = FieldPath::resolve(&route.input, name, Spelling::Json)
        .ok_or_else(|| refuse(name, json::unknown(&route.input)))?;
    if route.body_field().is_some_and(|body| field.starts_with(body)) {
        return Err(refuse(name, "belongs into the body"));
    }
    if route.variables.iter().any(|variable| field.is_within(variable) || variable.is_within(&field)) {
        return Err(refuse(name, "is given by the path"));
    }
    if !text::is_writable(field.leaf()) {
        return Err(refuse(name, "cannot be given as a query parameter; name the field inside it"));
    }
    Ok(field)
}

fn put(field: &FieldPath, request: &mut DynamicMessage, name: &str, value: &str) -> Result<()> {
    let leaf = field.leaf();
    let parsed = text::parse(leaf, value).ok_or_else(|| refuse(name, format!("must be {}", text::expected(leaf))))?;
    if let Some(rival) = field.conflicting_oneof_member(request) {
        return Err(refuse(name, format!("cannot be given together with {}", rival.json_name())));
    }
    // The way there is made of messages, or `find` would not have found it.
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

fn refuse(name: &str, description: impl Into<String>) -> Error {
    // A name can be as long as a header; who sent it knows the rest.
    Error::invalid_field(name.chars().take(64).collect::<String>(), description)
}
