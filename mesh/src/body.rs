//! Response bodies that end early, with an error in their trailers.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use crate::{deadline, error::Error};

/// A gRPC response body that ends with an error in its trailers once a future is ready, unless it ended before.
#[derive(Debug)]
pub struct TakeUntil<B, F> {
    body: B,
    until: Pin<Box<F>>,
    error: fn() -> Error,
    is_over: bool,
}

impl<B, F: Future<Output = ()>> TakeUntil<B, F> {
    /// `body` until `until` is ready, and then `error`.
    pub fn new(body: B, until: F, error: fn() -> Error) -> Self {
        Self { body, until: Box::pin(until), error, is_over: false }
    }
}

impl<B> TakeUntil<B, Sleep> {
    /// `body` until `deadline`, and then DEADLINE_EXCEEDED.
    pub fn deadline(body: B, deadline: Instant) -> Self {
        Self::new(body, tokio::time::sleep_until(deadline.into()), deadline::exceeded)
    }
}

impl<B, F> Body for TakeUntil<B, F>
where
    B: Body<Data = Bytes> + Unpin,
    F: Future<Output = ()>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if self.until.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        // The headers of a status that an `Error` becomes are always valid; without them the stream would just end.
        let _ = Status::from((self.error)()).add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
