//! What HTTP itself demands of a request, and hyper leaves to its user: checked before anything is looked up.

use drystone_mesh::{
    error::{Error, Reason},
    host,
};
use http::{HeaderMap, Method, StatusCode, header::EXPECT, request::Parts};

use crate::http::refusal::Refusal;

/// Checks a request's host, the form of its target, and its expectations.
///
/// # Errors
/// 400 for a host or target that the RFCs refuse, 417 for an expectation that cannot be met, 501 for CONNECT.
pub(crate) fn check(head: &Parts) -> Result<(), Refusal> {
    host::check(head.version, &head.uri, &head.headers)
        .map_err(|error| Error::invalid_field("host", error.to_string()))?;
    target(head)?;
    expectation(head)
}

/// Whether the request asks about the server and not about anything on it (RFC 9110, section 9.3.7).
pub(crate) fn is_for_server(head: &Parts) -> bool {
    head.method == Method::OPTIONS && head.uri.path() == "*"
}

/// The forms that a target may have (RFC 9112, section 3.2).
fn target(head: &Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        let error = Error::new(Reason::MethodNotAllowed, "this server is no proxy; CONNECT is not implemented");
        return Err(Refusal::from(error).with_http(StatusCode::NOT_IMPLEMENTED).closing(true));
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

/// Refuses every expectation but `100-continue`, which is the only one that RFC 9110 defines.
fn expectation(head: &Parts) -> Result<(), Refusal> {
    if !head.headers.contains_key(EXPECT) || awaits_continue(&head.headers) {
        return Ok(());
    }
    let error = Error::invalid_field("expect", "cannot be met; the one expectation known here is `100-continue`");
    Err(Refusal::from(error).with_http(StatusCode::EXPECTATION_FAILED))
}

/// Whether the client waits to be told that it may send its body (RFC 9110, section 10.1.1).
pub(crate) fn awaits_continue(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(EXPECT).iter();
    let is_continue = lines.next().is_some_and(|line| line.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    is_continue && lines.next().is_none()
}
