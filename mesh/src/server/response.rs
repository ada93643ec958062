//! Responses: the deadline of streams, and recording each call once when its response ends.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tracing::{Span, debug, info};

use super::stack::RpcEntry;
use crate::{
    body::TakeUntil,
    error::{Error, Reason},
    telemetry::CallerLabel,
};

/// The body of a response, as passed to hyper without further boxing.
pub(super) struct ResponseBody {
    body: Body,
    completion: Option<Completion>,
}

impl From<Body> for ResponseBody {
    /// A body without a record.
    fn from(body: Body) -> Self {
        Self { body, completion: None }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
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
    pub(super) permit: Option<OwnedSemaphorePermit>,
    pub(super) is_recorded: bool,
}

impl Completion {
    /// Records the code in the headers of a response.
    pub(super) fn headers<B>(mut self, response: &Response<B>) {
        self.record(code_of(response.headers()).unwrap_or(Code::Ok));
    }

    /// Records the code when the response ends.
    pub(super) fn watch(mut self, response: Response<Body>) -> Response<ResponseBody> {
        if let Some(code) = code_of(response.headers()) {
            self.record(code);
            return response.map(ResponseBody::from);
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
        span.in_scope(|| {
            debug!(?code, ?elapsed, "call ended");
            if entry.rule.audit.is_some() {
                info!(target: "audit", ?code, client, %remote, "audited call");
            }
        });
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.record(Code::Cancelled);
    }
}

/// The body of a streaming response, which ends at its deadline and when the server stops.
pub(super) fn stream(body: Body, deadline: Option<Instant>, stop: CancellationToken) -> Body {
    // A complete body cannot exceed its deadline.
    if body.is_end_stream() {
        return body;
    }
    let body = TakeUntil::new(body, stop.cancelled_owned(), server_stopping);
    match deadline {
        Some(deadline) => Body::new(TakeUntil::deadline(body, deadline)),
        None => Body::new(body),
    }
}

fn server_stopping() -> Error {
    Error::new(Reason::Unavailable, "this server is stopping; connect to another or try again")
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}
