//! Response bodies that end early, with an error in their trailers.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::{deadline, error::Error};

/// A gRPC response body that ends with an error in its trailers once a future yields one, unless it ended before.
pub struct TakeUntil<B> {
    body: B,
    until: BoxFuture<'static, Error>,
    is_over: bool,
}

impl<B> TakeUntil<B> {
    /// `body` until `until` yields the error.
    pub fn new(body: B, until: impl Future<Output = Error> + Send + 'static) -> Self {
        Self { body, until: Box::pin(until), is_over: false }
    }

    /// `body` until `deadline`, and then DEADLINE_EXCEEDED.
    pub fn deadline(body: B, deadline: Instant) -> Self {
        Self::new(body, async move {
            tokio::time::sleep_until(deadline.into()).await;
            deadline::exceeded()
        })
    }
}

impl<B> Body for TakeUntil<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        // First, so that a body that is always ready ends as well.
        let Poll::Ready(error) = self.until.as_mut().poll(cx) else {
            return Pin::new(&mut self.body).poll_frame(cx);
        };
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        // The headers of a status that an `Error` becomes are always valid; without them the stream would just end.
        let _ = Status::from(error).add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
