//! Field masks: which fields an update is about.

use std::collections::BTreeSet;

use prost_types::FieldMask;

use crate::error::{Error, Result};

/// The name of the field that holds the mask, in every update there is.
const FIELD: &str = "update_mask";

/// What says which thing is meant, and in which version. REST clients send both along with their changes, so a
/// mask may name them; they are never changed.
const ADDRESS: [&str; 2] = ["id", "etag"];

/// The paths of `mask`, each of which is among `allowed`; `*` stands for all of them. The set is empty exactly
/// if there is no mask: then the fields that are set are meant.
///
/// # Errors
/// `INVALID_REQUEST` for a path that cannot be changed, and for a mask that names nothing to change.
pub fn paths<'a>(mask: Option<&FieldMask>, allowed: &[&'a str]) -> Result<BTreeSet<&'a str>> {
    let mut found = BTreeSet::new();
    let Some(mask) = mask.filter(|mask| !mask.paths.is_empty()) else {
        return Ok(found);
    };
    for path in mask.paths.iter().map(String::as_str) {
        if path == "*" {
            found.extend(allowed);
        } else if let Some(known) = allowed.iter().find(|known| **known == path) {
            found.insert(*known);
        } else if !ADDRESS.contains(&path) {
            return Err(Error::invalid_field(FIELD, format!("`{path}` cannot be changed here; {}", what_can(allowed))));
        }
    }
    if found.is_empty() { Err(nothing(allowed)) } else { Ok(found) }
}

/// The refusal of an update that changes nothing.
#[must_use]
pub fn nothing(allowed: &[&str]) -> Error {
    Error::invalid_field(FIELD, format!("names nothing to change; {}", what_can(allowed)))
}

fn what_can(allowed: &[&str]) -> String {
    format!("what can be changed: {}", allowed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: [&str; 2] = ["display_name", "labels"];

    fn ask(mask: &[&str]) -> Result<Vec<&'static str>> {
        let mask = FieldMask { paths: mask.iter().map(ToString::to_string).collect() };
        paths(Some(&mask), &ALLOWED).map(|paths| paths.into_iter().collect())
    }

    #[test]
    fn no_mask_and_an_empty_one_are_the_same() {
        assert!(paths(None, &ALLOWED).unwrap().is_empty());
        assert!(ask(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_allowed_is_found_once() {
        assert_eq!(ask(&["labels", "labels"]).unwrap(), ["labels"]);
        assert_eq!(ask(&["*"]).unwrap(), ALLOWED);
    }

    #[test]
    fn what_says_which_thing_is_meant_is_no_change() {
        assert_eq!(ask(&["id", "display_name", "etag"]).unwrap(), ["display_name"]);
        assert!(ask(&["id", "etag"]).unwrap_err().to_string().contains("names nothing to change"));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for path in ["email", "displayName", "labels.colour", ""] {
            let error = ask(&["display_name", path]).unwrap_err();
            assert_eq!(error.reason(), crate::error::Reason::InvalidRequest);
            assert!(error.to_string().contains(&format!("`{path}`")), "{error}");
        }
    }
}
