//! The rules of HTTP for requests that hyper does not enforce.

use drystone_mesh::{
    error::{Error, Reason},
    host,
};
use http::{HeaderMap, Method, StatusCode, header::EXPECT, request::Parts};

use crate::http::error::RequestError;

/// Checks a request's host, the form of its target, and its expectations.
///
/// # Errors
/// 400 for an invalid host or target, 417 for an unknown expectation, 501 for CONNECT.
pub(crate) fn check(head: &Parts) -> Result<(), RequestError> {
    host::check(head.version, &head.uri, &head.headers)
        .map_err(|error| Error::invalid_field("host", error.to_string()))?;
    target(head)?;
    expectation(head)
}

/// Whether the request is `OPTIONS *`, which is about the server as a whole (RFC 9110, section 9.3.7).
pub(crate) fn is_for_server(head: &Parts) -> bool {
    head.method == Method::OPTIONS && head.uri.path() == "*"
}

/// Checks the form of the target (RFC 9112, section 3.2).
fn target(head: &Parts) -> Result<(), RequestError> {
    if head.method == Method::CONNECT {
        let error = Error::new(Reason::MethodNotAllowed, "this server is not a proxy; CONNECT is not implemented");
        return Err(RequestError::from(error).with_http_status(StatusCode::NOT_IMPLEMENTED).closing(true));
    }
    let path = head.uri.path();
    if !path.starts_with('/') && !is_for_server(head) {
        let message = "the request's target must be a path such as `/health`, or an absolute URI";
        return Err(Error::new(Reason::InvalidRequest, message).into());
    }
    if head.uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(
            Error::new(Reason::InvalidRequest, "the scheme of the request's target must be http or https").into()
        );
    }
    Ok(())
}

/// Refuses every expectation except `100-continue`, the only one that RFC 9110 defines.
fn expectation(head: &Parts) -> Result<(), RequestError> {
    if !head.headers.contains_key(EXPECT) || awaits_continue(&head.headers) {
        return Ok(());
    }
    let error = Error::invalid_field("expect", "cannot be met; the only supported expectation is `100-continue`");
    Err(RequestError::from(error).with_http_status(StatusCode::EXPECTATION_FAILED))
}

/// Whether the client waits for 100 Continue before it sends its body (RFC 9110, section 10.1.1).
pub(crate) fn awaits_continue(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(EXPECT).iter();
    let is_continue = lines.next().is_some_and(|line| line.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    is_continue && lines.next().is_none()
}
