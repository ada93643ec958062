//! The body of a unary request: one message, which can be resent.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};

/// One encoded message. Unlike `http_body_util::Full` it has no size hint, which would add a `content-length` that gRPC does
/// not use. It reports its end, so that no empty frame is sent.
#[derive(Debug, Clone)]
pub(super) struct UnaryMessage(Option<Bytes>);

impl UnaryMessage {
    pub(super) fn new(message: Bytes) -> Self {
        Self(Some(message))
    }
}

impl Body for UnaryMessage {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|message| Ok(Frame::data(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}
