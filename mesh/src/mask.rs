//! Field masks of updates.

use std::collections::BTreeSet;

use drystone::status::quote;
use prost_types::FieldMask;

use crate::error::{Error, Result};

/// The name of the field of the mask, in every update request.
const FIELD: &str = "update_mask";

/// The fields that identify the resource and its version. REST clients send both with their changes, so a mask may
/// contain them; they are ignored.
const IDENTIFYING_FIELDS: [&str; 2] = ["id", "etag"];

/// The paths of `mask`, restricted to `allowed`; `*` means all of them. The set is empty exactly if there is no mask:
/// then the update changes the fields that are set.
///
/// # Errors
/// `INVALID_REQUEST` for a path that cannot be changed, and for a mask without a path to change.
pub fn paths<'a>(mask: Option<&FieldMask>, allowed: &[&'a str]) -> Result<BTreeSet<&'a str>> {
    let mut paths = BTreeSet::new();
    let Some(mask) = mask.filter(|mask| !mask.paths.is_empty()) else {
        return Ok(paths);
    };
    for path in mask.paths.iter().map(String::as_str) {
        if path == "*" {
            paths.extend(allowed);
        } else if let Some(known) = allowed.iter().find(|known| **known == path) {
            paths.insert(*known);
        } else if !IDENTIFYING_FIELDS.contains(&path) {
            return Err(Error::invalid_field(
                FIELD,
                format!("`{}` cannot be changed; {}", quote(path), changeable(allowed)),
            ));
        }
    }
    if paths.is_empty() { Err(no_changes(allowed)) } else { Ok(paths) }
}

/// The error of an update without changes.
#[must_use]
pub fn no_changes(allowed: &[&str]) -> Error {
    Error::invalid_field(FIELD, format!("names no field to change; {}", changeable(allowed)))
}

fn changeable(allowed: &[&str]) -> String {
    format!("fields that can be changed: {}", allowed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: [&str; 2] = ["display_name", "labels"];

    fn parse(mask: &[&str]) -> Result<Vec<&'static str>> {
        let mask = FieldMask { paths: mask.iter().map(ToString::to_string).collect() };
        paths(Some(&mask), &ALLOWED).map(|paths| paths.into_iter().collect())
    }

    #[test]
    fn an_empty_mask_is_the_same_as_no_mask() {
        assert!(paths(None, &ALLOWED).unwrap().is_empty());
        assert!(parse(&[]).unwrap().is_empty());
    }

    #[test]
    fn allowed_paths_are_returned_once() {
        assert_eq!(parse(&["labels", "labels"]).unwrap(), ["labels"]);
        assert_eq!(parse(&["*"]).unwrap(), ALLOWED);
    }

    #[test]
    fn id_and_etag_are_ignored() {
        assert_eq!(parse(&["id", "display_name", "etag"]).unwrap(), ["display_name"]);
        assert!(parse(&["id", "etag"]).unwrap_err().to_string().contains("names no field to change"));
    }

    #[test]
    fn any_other_path_is_rejected_by_name() {
        for path in ["email", "displayName", "labels.colour", ""] {
            let error = parse(&["display_name", path]).unwrap_err();
            assert_eq!(error.reason(), crate::error::Reason::InvalidRequest);
            assert!(error.to_string().contains(&format!("`{path}`")), "{error}");
        }
    }
}
