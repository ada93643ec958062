//! Etags: row versions as opaque strings.

use crate::error::{Error, Reason, Result};

/// The etag of this version.
#[must_use]
pub fn format(version: i64) -> String {
    format!("v{version}")
}

/// Parses an etag. `None` if it is empty: the write is unconditional.
///
/// # Errors
/// `STALE_ETAG` if it is malformed, since no row can have it.
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

/// The error of a write whose etag does not match the row's version.
#[must_use]
pub fn stale() -> Error {
    Error::new(
        Reason::StaleEtag,
        "the resource has changed since this etag was read; read it again and repeat the change",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_parsed_to_its_version() {
        assert_eq!(parse(&format(7)).unwrap(), Some(7));
        assert_ne!(format(7), format(8));
    }

    #[test]
    fn an_empty_etag_is_unconditional() {
        assert_eq!(parse("").unwrap(), None);
    }

    #[test]
    fn a_malformed_etag_is_stale() {
        for bad in ["7", "v", "v07", "v+7", "V7", "\"v7\"", "v99999999999999999999"] {
            assert_eq!(parse(bad).unwrap_err().reason(), Reason::StaleEtag, "{bad}");
        }
    }
}
