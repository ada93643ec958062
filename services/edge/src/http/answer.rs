//! What goes back to the client: headers of every answer, JSON, and errors as `google.rpc.Status`.

use bytes::Bytes;
use drystone_mesh::error::{Error, Reason, reason_of};
use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{
        ACCEPT, ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH,
        CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::Full;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use tonic::{Code, Status};
use tonic_types::{StatusExt, pb};

use crate::{
    http::refusal::{Accepts, Refusal},
    routing::route::Route,
    transcode::field,
};

/// Which media types PATCH takes (RFC 5789, section 3.1).
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer on its way out.
pub(crate) type Answer = Response<Full<Bytes>>;

/// An answer of this JSON.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// An answer that anybody may keep, and that scripts of any origin may read: it is the same for all.
pub(crate) fn public(mut answer: Answer, cache_control: &HeaderValue) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, cache_control.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer
}

/// An answer that says which methods a path has.
pub(crate) fn options<'m>(methods: impl Iterator<Item = &'m str>) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    allow(&mut answer, methods);
    answer
}

fn allow<'m>(answer: &mut Answer, methods: impl Iterator<Item = &'m str>) {
    let methods: Vec<&str> = methods.collect();
    if answer.status().is_success() && methods.contains(&"PATCH") {
        answer.headers_mut().insert(ACCEPT_PATCH, JSON);
    }
    // Methods are tokens, which a header can always carry.
    if let Ok(value) = HeaderValue::try_from(methods.join(", ")) {
        answer.headers_mut().insert(ALLOW, value);
    }
}

/// What every answer gets: the request's id, and headers that keep it out of caches and from being taken for
/// something else. An answer to HEAD loses its body and keeps its length.
pub(crate) fn finish(mut answer: Answer, method: &Method, request_id: HeaderValue) -> Answer {
    const REQUEST_ID: HeaderName = drystone_mesh::call::header::REQUEST_ID;
    let headers = answer.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if method == Method::HEAD {
        let length = http_body::Body::size_hint(answer.body()).exact().unwrap_or_default();
        answer.headers_mut().insert(CONTENT_LENGTH, length.into());
        *answer.body_mut() = Full::default();
    }
    answer
}

/// Writes errors. It knows the messages of `google.rpc` that their details are made of.
pub(crate) struct Errors {
    status: MessageDescriptor,
}

impl Errors {
    /// `None` if the descriptors of `google.rpc`, which are part of the program, cannot be read.
    pub(crate) fn new() -> Option<Self> {
        let mut pool = DescriptorPool::global();
        pool.decode_file_descriptor_set(pb::FILE_DESCRIPTOR_SET).ok()?;
        Some(Self { status: pool.get_message_by_name("google.rpc.Status")? })
    }

    /// The answer to a request that is refused. `route` is where it went, if it got so far.
    pub(crate) fn answer(&self, refusal: Refusal, route: Option<&Route>, version: Version) -> Answer {
        let status = if refusal.is_from_service { presentable(refusal.status) } else { refusal.status };
        let reason = reason_of(&status);
        let http = refusal.http.unwrap_or_else(|| http_status(reason, status.code()));
        let renamed = route.filter(|_| refusal.is_from_service);
        let mut answer = json(http, self.body(&status, renamed));

        let headers = answer.headers_mut();
        if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
            let whole_seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, whole_seconds.max(1).into());
        }
        if http == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, challenge(reason));
        }
        match refusal.accepts {
            Some(Accepts::Identity) => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            Some(Accepts::Json) => {
                headers.insert(ACCEPT, JSON);
                if route.is_some_and(|route| route.method == Method::PATCH) {
                    headers.insert(ACCEPT_PATCH, JSON);
                }
            }
            None => {}
        }
        // HTTP/2 has its own way to end a stream, and forbids this header.
        if refusal.closes && version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(methods) = &refusal.allow {
            allow(&mut answer, methods.iter().map(String::as_str));
        }
        answer
    }

    fn body(&self, status: &Status, route: Option<&Route>) -> Vec<u8> {
        let mut details = pb::Status::decode(status.details()).unwrap_or_default().details;
        let mut message = status.message().to_owned();
        if let Some(route) = route {
            rename_fields(route, &mut details, &mut message);
        }
        let pool = self.status.parent_pool();
        details.retain(|detail| {
            detail.type_url.rsplit_once('/').is_some_and(|(_, name)| pool.get_message_by_name(name).is_some())
        });
        let code = i32::from(status.code());
        let plain = serde_json::json!({ "code": code, "message": &message });
        let whole = pb::Status { code, message, details }.encode_to_vec();
        // A detail that does not keep to its own type is left out with the others.
        DynamicMessage::decode(self.status.clone(), whole.as_slice())
            .ok()
            .and_then(|whole| serde_json::to_vec(&whole).ok())
            .unwrap_or_else(|| plain.to_string().into_bytes())
    }
}

/// A service's status as an outside client may see it. What it says of its own failures or of the mesh's rules, and
/// what a broken connection says, is logged and replaced.
fn presentable(status: Status) -> Status {
    use Code::{Cancelled, DataLoss, DeadlineExceeded, Internal, Ok, Unavailable, Unknown};
    use Reason::{CallerExpired, CallerNotAllowed, CallerUnidentified, MethodUnknown};
    let is_ours = match reason_of(&status) {
        Some(CallerExpired | CallerNotAllowed | CallerUnidentified | MethodUnknown) => false,
        Some(_) => true,
        None => {
            !matches!(status.code(), Ok | Cancelled | Unknown | DeadlineExceeded | Internal | Unavailable | DataLoss)
        }
    };
    if is_ours { status } else { Error::from(status).into() }
}

/// The HTTP status of a failure: the reason's own, else the one that `google.rpc.Code` gives its code.
fn http_status(reason: Option<Reason>, code: Code) -> StatusCode {
    if let Some(status) = reason.and_then(|reason| StatusCode::from_u16(reason.http()).ok()) {
        return status;
    }
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// How a client proves its user, and what is wrong with the proof it gave (RFC 6750, section 3).
fn challenge(reason: Option<Reason>) -> HeaderValue {
    HeaderValue::from_static(match reason {
        Some(Reason::TokenInvalid | Reason::TokenExpired | Reason::TokenRevoked) => "Bearer error=\"invalid_token\"",
        _ => "Bearer",
    })
}

/// Names the fields of `BadRequest`, and of a message that is made of them, as the client knows them.
fn rename_fields(route: &Route, details: &mut [prost_types::Any], message: &mut String) {
    for detail in details.iter_mut().filter(|detail| detail.type_url.ends_with("/google.rpc.BadRequest")) {
        let Ok(mut bad_request) = pb::BadRequest::decode(detail.value.as_slice()) else { continue };
        let is_summary = summary(&bad_request) == *message;
        for violation in &mut bad_request.field_violations {
            violation.field = field::for_client(&route.input, route.body_field(), &violation.field);
        }
        if is_summary {
            *message = summary(&bad_request);
        }
        detail.value = bad_request.encode_to_vec();
    }
}

/// The message that goes with these violations, as every service of ours writes it.
fn summary(bad_request: &pb::BadRequest) -> String {
    let line = |violation: &pb::bad_request::FieldViolation| format!("{}: {}", violation.field, violation.description);
    bad_request.field_violations.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;

    async fn body(answer: Answer) -> serde_json::Value {
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    fn errors() -> Errors {
        Errors::new().unwrap()
    }

    #[tokio::test]
    async fn an_error_is_a_google_rpc_status() {
        let error = Error::new(Reason::Overloaded, "too much at once").retry_after(Duration::from_millis(1500));
        let answer = errors().answer(error.into(), None, Version::HTTP_11);
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()[RETRY_AFTER], "2");
        assert_eq!(
            body(answer).await,
            serde_json::json!({
                "code": 8,
                "message": "too much at once",
                "details": [
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500s"},
                    {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "OVERLOADED", "domain": "drystone"},
                ],
            })
        );
    }

    #[tokio::test]
    async fn every_reason_has_its_status() {
        for reason in Reason::ALL {
            let refusal = Refusal::from_service(Error::new(*reason, "said so").into());
            let answer = errors().answer(refusal, None, Version::HTTP_11);
            let is_hidden = reason.name().starts_with("CALLER_") || *reason == Reason::MethodUnknown;
            let status = answer.status();
            let expected = match reason {
                // It is the edge's own certificate that has expired.
                Reason::CallerExpired => 503,
                _ if is_hidden => 500,
                reason => reason.http(),
            };
            assert_eq!(status.as_u16(), expected, "{}", reason.name());
            assert_eq!(answer.headers().contains_key(WWW_AUTHENTICATE), status == 401);
            let body = body(answer).await;
            assert_eq!(body["message"] == "said so", !is_hidden, "{body}");
        }
    }

    #[tokio::test]
    async fn what_a_broken_connection_says_stays_inside() {
        let status = Status::unavailable("tcp connect error: 10.0.0.7:50052 refused");
        let answer = errors().answer(Refusal::from_service(status), None, Version::HTTP_11);
        assert_eq!((answer.status().as_u16(), answer.headers()[RETRY_AFTER].as_bytes()), (503, b"1".as_slice()));
        let text = body(answer).await.to_string();
        assert!(text.contains("UNAVAILABLE") && !text.contains("10.0.0.7"), "{text}");
    }

    #[tokio::test]
    async fn a_status_of_somebody_else_keeps_its_code() {
        for (code, http) in [
            (Code::InvalidArgument, 400),
            (Code::FailedPrecondition, 400),
            (Code::OutOfRange, 400),
            (Code::Unauthenticated, 401),
            (Code::PermissionDenied, 403),
            (Code::NotFound, 404),
            (Code::AlreadyExists, 409),
            (Code::Aborted, 409),
            (Code::ResourceExhausted, 429),
            (Code::Unimplemented, 501),
            (Code::Internal, 500),
            (Code::Unknown, 500),
            (Code::DeadlineExceeded, 504),
        ] {
            let refusal = Refusal::from_service(Status::new(code, "x"));
            assert_eq!(errors().answer(refusal, None, Version::HTTP_11).status(), http, "{code:?}");
        }
    }

    #[tokio::test]
    async fn details_that_cannot_be_read_are_left_out() {
        let mut details = pb::Status { code: 5, message: String::new(), details: vec![prost_types::Any::default()] };
        details.details.push(prost_types::Any { type_url: "x/no.such.Type".to_owned(), value: vec![0xff] });
        let status = Status::with_details(Code::NotFound, "gone", details.encode_to_vec().into());
        let answer = errors().answer(Refusal::from_service(status), None, Version::HTTP_11);
        assert_eq!(body(answer).await, serde_json::json!({"code": 5, "message": "gone"}));

        let broken = prost_types::Any { type_url: "x/google.rpc.BadRequest".to_owned(), value: vec![0xff] };
        let details = pb::Status { code: 3, message: String::new(), details: vec![broken] };
        let status = Status::with_details(Code::InvalidArgument, "bad", details.encode_to_vec().into());
        let answer = errors().answer(Refusal::from_service(status), None, Version::HTTP_11);
        assert_eq!(body(answer).await, serde_json::json!({"code": 3, "message": "bad"}));
    }

    #[tokio::test]
    async fn the_challenge_says_whether_a_token_was_bad() {
        let challenge = |reason| {
            let answer = errors().answer(Error::new(reason, "x").into(), None, Version::HTTP_11);
            answer.headers()[WWW_AUTHENTICATE].to_str().unwrap().to_owned()
        };
        assert_eq!(challenge(Reason::TokenMissing), "Bearer");
        assert_eq!(challenge(Reason::InvalidCredentials), "Bearer");
        assert_eq!(challenge(Reason::TokenExpired), "Bearer error=\"invalid_token\"");
    }
}
