//! Etags: a row's version as callers see it.

use crate::error::{Error, Reason, Result};

/// The etag of this version.
#[must_use]
pub fn format(version: i64) -> String {
    format!("v{version}")
}

/// Reads an etag. An empty one asks for nothing: `None`.
///
/// # Errors
/// `STALE_ETAG` if it is none of ours: no row has it.
pub fn parse(given: &str) -> Result<Option<i64>> {
    if given.is_empty() {
        return Ok(None);
    }
    let version = given.strip_prefix('v').and_then(|digits| digits.parse().ok());
    match version {
        Some(version) if format(version) == given => Ok(Some(version)),
        _ => Err(stale()),
    }
}

/// The failure of a write that came too late.
#[must_use]
pub fn stale() -> Error {
    Error::new(Reason::StaleEtag, "it has changed since this etag was read: read it again and repeat the change")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_names_its_own_version() {
        assert_eq!(parse(&format(7)).unwrap(), Some(7));
        assert_ne!(format(7), format(8));
    }

    #[test]
    fn an_empty_etag_asks_for_no_version() {
        assert_eq!(parse("").unwrap(), None);
    }

    #[test]
    fn an_etag_that_is_none_of_ours_is_stale() {
        for bad in ["7", "v", "v07", "v+7", "V7", "\"v7\"", "v99999999999999999999"] {
            assert_eq!(parse(bad).unwrap_err().reason(), Reason::StaleEtag, "{bad}");
        }
    }
}
