//! The content type and coding of a body.

use drystone_mesh::error::{Error, Reason};
use http::{HeaderMap, HeaderValue, header};

use crate::http::error::{Accepts, RequestError};

/// Checks that a body is uncompressed JSON.
///
/// # Errors
/// `UNSUPPORTED_MEDIA_TYPE`.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), RequestError> {
    let unsupported = |accepts: Accepts, message: &'static str| {
        Err(RequestError::from(Error::new(Reason::UnsupportedMediaType, message)).accepting(accepts))
    };
    let is_identity = |value: &HeaderValue| {
        let mut codings = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"))
    };
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) {
        return unsupported(
            Accepts::Identity,
            "compressed bodies are not supported; send it without `content-encoding`",
        );
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else {
        return unsupported(
            Accepts::Json,
            "the body has no single content type; send `content-type: application/json`",
        );
    };
    match content_type.to_str() {
        Ok(text) if is_json(text) => Ok(()),
        _ => unsupported(
            Accepts::Json,
            "the content type of the body is not JSON in UTF-8; send `content-type: application/json`",
        ),
    }
}

/// Whether a content type is JSON in UTF-8 (RFC 9110, section 8.3).
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    is_json
        && parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
            let value = value.trim_matches('"');
            !name.eq_ignore_ascii_case("charset") || value.eq_ignore_ascii_case("utf-8")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf8_is_accepted() {
        for good in ["application/json", "Application/JSON", "application/json; charset=utf-8"] {
            assert!(is_json(good), "{good}");
        }
        assert!(is_json("application/json;charset=\"UTF-8\"; profile=x"));
        for bad in
            ["", "text/json", "application/jsonp", "application/json; charset=latin1", "application/json, text/plain"]
        {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
