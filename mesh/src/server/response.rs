//! What happens to an answer on its way out: it keeps its deadline, holds its place, and is counted once.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status, body::Body};

use crate::{
    deadline::DeadlineBody,
    error::{Error, Reason},
};

/// Holds a call's place among those in flight until its answer has gone, and ends it in time.
pub(super) fn hold(
    response: Response<Body>,
    deadline: Option<Instant>,
    permit: OwnedSemaphorePermit,
    stop: Option<CancellationToken>,
) -> Response<Body> {
    // An answer without a body has gone already; one whose frames are all there cannot be late.
    if response.body().is_end_stream() {
        return response;
    }
    response.map(|body| match stop {
        // A stream may stand for days: it gives its place back, and has a deadline and the server's end to mind.
        Some(stop) => {
            let body = Stream { body, stop: Box::pin(stop.cancelled_owned()), over: false };
            match deadline {
                Some(deadline) => Body::new(DeadlineBody::new(body, deadline)),
                None => Body::new(body),
            }
        }
        None => Body::new(Held { body, _permit: permit }),
    })
}

/// The answer of a unary call, which keeps its place until it has gone.
struct Held {
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream of answers, which ends when the server stops.
struct Stream {
    body: Body,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if self.stop.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.over = true;
        let mut trailers = HeaderMap::new();
        let leaving = Error::new(Reason::Unavailable, "this server is stopping; connect to another or try again");
        let _ = Status::from(leaving).add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Tells once how a call ended, whichever way that becomes known: in the headers of an answer without
/// body, in its trailers, or by the caller going away.
pub(super) struct Finish(Option<Box<dyn FnOnce(Code) + Send>>);

impl Finish {
    pub(super) fn new(tell: impl FnOnce(Code) + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    /// Tells the code that stands in an answer's headers.
    pub(super) fn headers<B>(mut self, response: &Response<B>) {
        self.tell(code_of(response.headers()).unwrap_or(Code::Ok));
    }

    /// Watches an answer until its end.
    pub(super) fn watch(mut self, response: Response<Body>) -> Response<Body> {
        if let Some(code) = code_of(response.headers()) {
            self.tell(code);
            return response;
        }
        response.map(|body| Body::new(Watched { body, finish: self }))
    }

    fn tell(&mut self, code: Code) {
        if let Some(tell) = self.0.take() {
            tell(code);
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.tell(Code::Cancelled);
    }
}

struct Watched {
    body: Body,
    finish: Finish,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(code) = frame.trailers_ref().and_then(code_of) {
                    self.finish.tell(code);
                }
            }
            Poll::Ready(Some(Err(status))) => self.finish.tell(status.code()),
            Poll::Ready(None) => self.finish.tell(Code::Ok),
            Poll::Pending => {}
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

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}
