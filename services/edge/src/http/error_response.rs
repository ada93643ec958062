//! Error responses: JSON of `google.rpc.Status`, and the headers that go with it.

use drystone::status::{self, StepUp};
use drystone_mesh::error::Reason;
use http::{
    HeaderValue, Method, StatusCode, Version,
    header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use tonic::{Code, Status};
use tonic_types::{RpcStatusExt, pb};

use crate::{
    http::{
        error::{Accepts, Cause, RequestError},
        response::{self, ACCEPT_PATCH, EdgeResponse, JSON},
    },
    routing::route::Route,
    transcode::field,
};

/// Encodes errors. It has the descriptors of `google.rpc`, whose messages are the details of a status.
pub(crate) struct ErrorEncoder {
    status: MessageDescriptor,
}

impl ErrorEncoder {
    /// `None` if the descriptors of `google.rpc`, which are compiled in, cannot be read.
    pub(crate) fn new() -> Option<Self> {
        let mut pool = DescriptorPool::global();
        pool.decode_file_descriptor_set(pb::FILE_DESCRIPTOR_SET).ok()?;
        Some(Self { status: pool.get_message_by_name("google.rpc.Status")? })
    }

    /// The response to a failed request, and to its route if it has one.
    pub(crate) fn response(&self, error: RequestError, route: Option<&Route>, version: Version) -> EdgeResponse {
        let RequestError { cause, http_status, allow, accepts, closes } = error;
        let (status, reason, is_upstream) = match cause {
            Cause::Edge(error) => {
                let reason = error.reason();
                (Status::from(error), Some(reason), false)
            }
            Cause::Upstream { status, reason } => (status, reason, true),
        };
        let code = status.code();
        let details = pb::Status::decode(status.details()).unwrap_or_default().details;
        let mut rpc_status = pb::Status { code: code.into(), message: status.message().to_owned(), details };
        let http_status = http_status.unwrap_or_else(|| http_status_of(reason, code));
        let retry_delay = rpc_status.get_details_retry_info().and_then(|info| info.retry_delay);
        if is_upstream && let Some(route) = route {
            rename_fields(route, &mut rpc_status);
        }
        let mut response = response::json(http_status, self.json(rpc_status));

        let headers = response.headers_mut();
        if let Some(delay) = retry_delay {
            headers.insert(RETRY_AFTER, status::retry_after_seconds(delay).into());
        }
        if http_status == StatusCode::UNAUTHORIZED
            && let Ok(challenge) = HeaderValue::from_str(&status::challenge(reason, StepUp::of(&status)))
        {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        match accepts {
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
        // HTTP/2 ends a stream without this header, and forbids it.
        if closes && version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(methods) = &allow {
            response::allow(&mut response, methods.iter().map(String::as_str));
        }
        response
    }

    /// The JSON of a status, without details of types other than those of `google.rpc`.
    fn json(&self, mut status: pb::Status) -> Vec<u8> {
        let pool = self.status.parent_pool();
        status.details.retain(|detail| {
            detail.type_url.rsplit_once('/').is_some_and(|(_, name)| pool.get_message_by_name(name).is_some())
        });
        DynamicMessage::decode(self.status.clone(), status.encode_to_vec().as_slice())
            .ok()
            .and_then(|dynamic| serde_json::to_vec(&dynamic).ok())
            // A detail is invalid: all are omitted.
            .unwrap_or_else(|| {
                serde_json::json!({ "code": status.code, "message": status.message }).to_string().into_bytes()
            })
    }
}

/// The HTTP status of an error: the reason's own, else that of `google.rpc.Code`.
fn http_status_of(reason: Option<Reason>, code: Code) -> StatusCode {
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

/// Renames the fields of `BadRequest`, and of a message that is made of them, to the client's names.
fn rename_fields(route: &Route, status: &mut pb::Status) {
    let pb::Status { message, details, .. } = status;
    for detail in details.iter_mut().filter(|detail| detail.type_url.ends_with("/google.rpc.BadRequest")) {
        let Ok(mut bad_request) = pb::BadRequest::decode(detail.value.as_slice()) else { continue };
        let given = summary(&bad_request);
        for violation in &mut bad_request.field_violations {
            violation.field = field::for_client(&route.input, route.body_field(), &violation.field);
        }
        if let Some(rest) = message.strip_prefix(&given) {
            // Nothing, or the number of omitted violations.
            *message = format!("{}{rest}", summary(&bad_request));
        } else if message.strip_suffix("...").is_some_and(|shortened| given.starts_with(shortened)) {
            *message = summary(&bad_request);
        }
        detail.value = bad_request.encode_to_vec();
    }
}

/// The message that Drystone's services write for these violations.
fn summary(bad_request: &pb::BadRequest) -> String {
    let line = |violation: &pb::bad_request::FieldViolation| format!("{}: {}", violation.field, violation.description);
    bad_request.field_violations.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use drystone_mesh::error::Error;

    use super::*;

    fn body(response: &EdgeResponse) -> serde_json::Value {
        serde_json::from_slice(response.body()).unwrap()
    }

    fn respond(error: RequestError) -> EdgeResponse {
        ErrorEncoder::new().unwrap().response(error, None, Version::HTTP_11)
    }

    #[tokio::test]
    async fn an_error_is_a_google_rpc_status() {
        let error = Error::new(Reason::Overloaded, "too much at once").retry_after(Duration::from_millis(1500));
        let response = respond(error.into());
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(
            body(&response),
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
    async fn every_reason_has_its_http_status() {
        for reason in Reason::ALL {
            let error = RequestError::upstream(Error::new(*reason, "some message").into());
            let response = respond(error);
            let is_hidden = reason.name().starts_with("CALLER_") || *reason == Reason::MethodUnknown;
            let status = response.status();
            let expected = match reason {
                // The edge's own certificate has expired.
                Reason::CallerExpired | Reason::CallerRevoked => 503,
                _ if is_hidden => 500,
                reason => reason.http(),
            };
            assert_eq!(status.as_u16(), expected, "{}", reason.name());
            assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), status == 401);
            let body = body(&response);
            assert_eq!(body["message"] == "some message", !is_hidden, "{body}");
        }
    }

    #[tokio::test]
    async fn connection_errors_are_not_shown_to_clients() {
        let status = Status::unavailable("tcp connect error: 10.0.0.7:50052 refused");
        let response = respond(RequestError::upstream(status));
        assert_eq!((response.status().as_u16(), response.headers()[RETRY_AFTER].as_bytes()), (503, b"1".as_slice()));
        let text = body(&response).to_string();
        assert!(text.contains("UNAVAILABLE") && !text.contains("10.0.0.7"), "{text}");
    }

    #[tokio::test]
    async fn a_status_without_reason_keeps_its_code() {
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
            let error = RequestError::upstream(Status::new(code, "x"));
            assert_eq!(respond(error).status(), http, "{code:?}");
        }
    }

    #[tokio::test]
    async fn invalid_details_are_omitted() {
        let mut details = pb::Status { code: 5, message: String::new(), details: vec![prost_types::Any::default()] };
        details.details.push(prost_types::Any { type_url: "x/no.such.Type".to_owned(), value: vec![0xff] });
        let status = Status::with_details(Code::NotFound, "not here", details.encode_to_vec().into());
        let response = respond(RequestError::upstream(status));
        assert_eq!(body(&response), serde_json::json!({"code": 5, "message": "not here"}));

        let broken = prost_types::Any { type_url: "x/google.rpc.BadRequest".to_owned(), value: vec![0xff] };
        let details = pb::Status { code: 3, message: String::new(), details: vec![broken] };
        let status = Status::with_details(Code::InvalidArgument, "bad", details.encode_to_vec().into());
        let response = respond(RequestError::upstream(status));
        assert_eq!(body(&response), serde_json::json!({"code": 3, "message": "bad"}));
    }

    #[tokio::test]
    async fn the_challenge_tells_a_missing_token_from_an_invalid_one() {
        let challenge = |reason| {
            let response = respond(Error::new(reason, "x").into());
            response.headers()[WWW_AUTHENTICATE].to_str().unwrap().to_owned()
        };
        assert_eq!(challenge(Reason::TokenMissing), "Bearer");
        assert_eq!(challenge(Reason::InvalidCredentials), "Bearer");
        assert_eq!(challenge(Reason::TokenExpired), "Bearer error=\"invalid_token\"");
    }
}
