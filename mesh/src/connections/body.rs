//! A response body whose bytes count until the socket has taken them.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};

use super::Request;

/// The maximum size of a piece, in bytes. The transport takes a piece as soon as the peer accepts a single byte.
const MAX_PIECE: usize = 16 << 10;

/// How much of one response the transport can have: its send buffer, and a piece.
pub(super) const MAX_IN_TRANSPORT: usize = 80 << 10;

/// A response body that keeps its request in progress, and hands its bytes to the transport in small pieces: what the
/// transport has taken is out of reach.
pub struct MeteredBody<B: Body = Empty<Bytes>> {
    request: Request,
    /// The bytes that are held.
    held: Bytes,
    /// What was polled in advance, other than data.
    next: Option<Result<Frame<Bytes>, B::Error>>,
    /// What follows.
    body: B,
    /// The bytes that the transport has taken.
    handed: usize,
    /// Whether the transport has taken everything.
    is_complete: bool,
}

impl MeteredBody {
    /// A body with these bytes.
    ///
    /// # Errors
    /// The request, if the bytes exceed the budget of its connection or peer.
    pub fn whole(bytes: Bytes, request: Request) -> Result<Self, Request> {
        match request.hold(bytes.len()) {
            Ok(()) => Ok(Self::with(request, bytes, None, Empty::new())),
            Err(_) => Err(request),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> MeteredBody<B> {
    /// Meters a body. Its first frame counts from now on, if it exists already: the message of a unary response.
    ///
    /// # Errors
    /// The request, if that frame exceeds the budget of its connection or peer.
    pub fn new(mut body: B, request: Request) -> Result<Self, Request> {
        let (held, next) = match body.frame().now_or_never().flatten() {
            None => (Bytes::new(), None),
            Some(Err(error)) => (Bytes::new(), Some(Err(error))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => (data, None),
                Err(frame) => (Bytes::new(), Some(Ok(frame))),
            },
        };
        match request.hold(held.len()) {
            Ok(()) => Ok(Self::with(request, held, next, body)),
            Err(_) => Err(request),
        }
    }

    /// An empty body.
    #[must_use]
    pub fn empty(request: Request) -> Self
    where
        B: Default,
    {
        Self::with(request, Bytes::new(), None, B::default())
    }
}

impl<B: Body<Data = Bytes>> MeteredBody<B> {
    fn with(request: Request, held: Bytes, next: Option<Result<Frame<Bytes>, B::Error>>, body: B) -> Self {
        request.starts_waiting();
        Self { request, held, next, body, handed: 0, is_complete: false }
    }

    /// The next piece of what is held.
    fn next_piece(&mut self) -> Option<Bytes> {
        if self.held.is_empty() {
            return None;
        }
        let piece = if self.held.len() <= MAX_PIECE {
            std::mem::take(&mut self.held)
        } else {
            // A copy: a slice would keep the whole allocation.
            Bytes::copy_from_slice(&self.held.split_to(MAX_PIECE))
        };
        self.request.hand_over(piece.len());
        self.handed += piece.len();
        self.is_complete = self.held.is_empty() && self.next.is_none() && self.body.is_end_stream();
        Some(piece)
    }
}

impl<B: Body<Data = Bytes, Error: Unpin> + Unpin> Body for MeteredBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        // The transport asks for more once it has sent the piece before.
        this.request.starts_waiting();
        if let Some(piece) = this.next_piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(next) = this.next.take() {
            this.is_complete = matches!(&next, Ok(frame) if frame.is_trailers());
            return Poll::Ready(Some(next));
        }
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        match &frame {
            Poll::Pending => this.request.ends_waiting(),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.request.buffer(data.len());
                    this.handed += data.len();
                }
                this.is_complete = frame.is_trailers() || this.body.is_end_stream();
            }
            Poll::Ready(None) => this.is_complete = true,
            Poll::Ready(Some(Err(_))) => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.next.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.len() as u64;
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

impl<B: Body> Drop for MeteredBody<B> {
    fn drop(&mut self) {
        self.request.discard(self.held.len());
        if !self.is_complete {
            self.request.usage().retract(self.handed.min(MAX_IN_TRANSPORT));
        }
    }
}

impl<B: Body> fmt::Debug for MeteredBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredBody").field("held", &self.held.len()).finish_non_exhaustive()
    }
}
