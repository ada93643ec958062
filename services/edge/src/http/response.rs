//! Responses: their headers, and JSON.

use bytes::Bytes;
use drystone_mesh::call::header::REQUEST_ID;
use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};

/// The media types of PATCH (RFC 5789, section 3.1).
pub(crate) const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A response of the edge.
pub(crate) type EdgeResponse = Response<Bytes>;

/// A response with this JSON.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> EdgeResponse {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Allows caches to store a response, and scripts of any origin to read it: it is the same for every client.
pub(crate) fn public(mut response: EdgeResponse, cache_control: &HeaderValue) -> EdgeResponse {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, cache_control.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// The response to OPTIONS.
pub(crate) fn options<'m>(methods: impl Iterator<Item = &'m str>) -> EdgeResponse {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    allow(&mut response, methods);
    response
}

/// Lists the methods of a path in `allow`.
pub(crate) fn allow<'m>(response: &mut EdgeResponse, methods: impl Iterator<Item = &'m str>) {
    let methods: Vec<&str> = methods.collect();
    if response.status().is_success() && methods.contains(&"PATCH") {
        response.headers_mut().insert(ACCEPT_PATCH, JSON);
    }
    // Methods are tokens, which are valid header values.
    if let Ok(value) = HeaderValue::try_from(methods.join(", ")) {
        response.headers_mut().insert(ALLOW, value);
    }
}

/// Adds the headers of every response: the request's id, and those that prevent caching and content sniffing. A response to
/// HEAD loses its body and keeps its length.
pub(crate) fn finish(mut response: EdgeResponse, method: &Method, request_id: &HeaderValue) -> EdgeResponse {
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id.clone());
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if method == Method::HEAD {
        let length = response.body().len();
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        response.body_mut().clear();
    }
    response
}
