//! Responses: the deadline of streams, the size of headers, and recording each call once when its response ends.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use drystone::status;
use http::{HeaderMap, Response, header::CONTENT_TYPE};
use http_body::{Body as _, Frame, SizeHint};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tracing::{Span, debug, info};

use super::{concurrency::Permit, stack::RpcEntry};
use crate::{
    body::TakeUntil,
    connections::{MeteredBody, Request},
    deadline::SetBy,
    error::{Error, Reason},
    telemetry::CallerLabel,
    token::TokenError,
};

/// The body of a response, as passed to hyper without further boxing.
pub(super) struct ResponseBody {
    body: MeteredBody<Body>,
    completion: Option<Completion>,
}

impl ResponseBody {
    /// A response whose end is not recorded.
    pub(super) fn of(response: Response<Body>, in_progress: Request) -> Response<Self> {
        meter(response, in_progress).map(|body| Self { body, completion: None })
    }
}

/// Counts the bytes of a response. A caller that has too many unread ones gets an error instead.
fn meter(response: Response<Body>, in_progress: Request) -> Response<MeteredBody<Body>> {
    let (head, body) = response.into_parts();
    match MeteredBody::new(body, in_progress) {
        Ok(body) => Response::from_parts(head, body),
        Err(in_progress) => {
            debug!("response replaced, the caller has too many unread ones");
            let error = Error::new(Reason::Overloaded, "too many responses are unread; read them, then call again")
                .retry_after(Duration::from_secs(1));
            Status::from(error).into_http::<Body>().map(|_| MeteredBody::empty(in_progress))
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            bound_headers(trailers);
        }
        let code = match &frame {
            Poll::Ready(Some(Ok(frame))) => frame.trailers_ref().and_then(code_of),
            Poll::Ready(Some(Err(status))) => Some(status.code()),
            Poll::Ready(None) => Some(Code::Ok),
            Poll::Pending => None,
        };
        if let (Some(code), Some(completion)) = (code, &mut self.completion) {
            completion.record(code);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Records the outcome of a call once: from the headers of a response without body, from its trailers, or from the caller's
/// disconnect.
pub(super) struct Completion {
    pub(super) entry: Arc<RpcEntry>,
    pub(super) caller: CallerLabel,
    pub(super) started: Instant,
    /// The address of the outside client, as reported by an entry point.
    pub(super) client: String,
    pub(super) remote: SocketAddr,
    pub(super) span: Span,
    /// The permit of a call in flight.
    pub(super) permit: Option<Permit>,
    pub(super) deadline_set_by: SetBy,
    pub(super) is_recorded: bool,
}

impl Completion {
    /// Records the code in the headers of a response.
    pub(super) fn headers<B>(mut self, response: &Response<B>) {
        self.record(code_of(response.headers()).unwrap_or(Code::Ok));
    }

    /// Records the code when the response ends.
    pub(super) fn watch(mut self, response: Response<Body>, in_progress: Request) -> Response<ResponseBody> {
        let mut response = self.span.in_scope(|| meter(response, in_progress));
        self.span.in_scope(|| bound_headers(response.headers_mut()));
        if let Some(code) = code_of(response.headers()) {
            self.record(code);
            return response.map(|body| ResponseBody { body, completion: None });
        }
        response.map(|body| ResponseBody { body, completion: Some(self) })
    }

    /// Counts the call and writes its audit record. The span has caller and user.
    fn record(&mut self, code: Code) {
        if std::mem::replace(&mut self.is_recorded, true) {
            return;
        }
        let Self { entry, caller, started, client, remote, span, .. } = self;
        let elapsed = started.elapsed();
        entry.metrics.observe(*caller, code, elapsed);
        if let (Some(latency), Some(_), Code::Ok | Code::DeadlineExceeded) = (&entry.latency, &self.permit, code) {
            latency.observe(elapsed);
        }
        if code == Code::DeadlineExceeded {
            entry.metrics.deadline_exceeded(self.deadline_set_by);
        }
        span.in_scope(|| {
            debug!(?code, ?elapsed, "call ended");
            if entry.rule.audit.is_some() && (!is_refusal(code) || entry.refusal_records.allows()) {
                info!(target: "audit", ?code, client, %remote, "audited call");
            }
        });
    }
}

/// Whether a call with this code may have been refused before it did anything.
fn is_refusal(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied | Code::ResourceExhausted | Code::InvalidArgument)
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.record(Code::Cancelled);
    }
}

/// The body of a streaming response, which ends at its deadline, when the user's token is no longer valid, and when its
/// connection or the server ends.
pub(super) fn stream(
    body: Body,
    deadline: Option<Instant>,
    invalidation: Option<impl Future<Output = TokenError> + Send + 'static>,
    stop: CancellationToken,
) -> Body {
    // A complete body cannot exceed its deadline.
    if body.is_end_stream() {
        return body;
    }
    let body = TakeUntil::new(body, async move {
        let stopped = async {
            stop.cancelled().await;
            server_stopping()
        };
        match invalidation {
            Some(invalidation) => tokio::select! {
                error = invalidation => error.into(),
                error = stopped => error,
            },
            None => stopped.await,
        }
    });
    match deadline {
        Some(deadline) => Body::new(TakeUntil::deadline(body, deadline)),
        None => Body::new(body),
    }
}

fn server_stopping() -> Error {
    Error::new(
        Reason::Unavailable,
        "the server is stopping, or a certificate of the connection has expired; connect again",
    )
}

/// The maximum size of response headers or trailers, in bytes as HTTP/2 counts them (RFC 9113, section 6.5.2). grpc-core and
/// grpc-java accept 8 KiB by default; a status takes up to [`status::MAX_SIZE`].
const MAX_HEADERS_SIZE: usize = 8 << 10;

/// Bounds headers or trailers, so that every client accepts them: a longer list fails the call, and with some clients the
/// connection. Custom metadata is removed, and a status shortened.
fn bound_headers(headers: &mut HeaderMap) {
    let size = |headers: &HeaderMap| -> usize {
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
    };
    if size(headers) <= MAX_HEADERS_SIZE {
        return;
    }
    debug!(size = size(headers), max = MAX_HEADERS_SIZE, "response metadata is too large, it is removed");
    let shortened = Status::from_header_map(headers).map(|status| status::shortened(&status));
    let content_type = headers.remove(CONTENT_TYPE);
    headers.clear();
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type);
    }
    if let Some(status) = shortened {
        // A status without metadata is always valid in headers.
        let _ = status.add_header(headers);
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}
