//! A socket that reports what it has taken, and reads a bounded amount at a time and in all.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::Usage;

/// How many bytes of one client are read before other connections have their turn. One that sends without a pause, in frames of nine
/// bytes, would otherwise keep a thread for milliseconds.
const MAX_READ: usize = 4 << 10;

/// The same of a connection that many users share.
const MAX_READ_SHARED: usize = 16 << 10;

/// The pause of a client that has sent more than it may ([`super::peer::Pace`]).
const PAUSE: Duration = Duration::from_millis(1);

/// A socket whose written bytes are reported to the usage of its connection.
#[derive(Debug)]
pub struct MeteredIo<S> {
    socket: S,
    usage: Usage,
    /// The bytes read since the socket had none, or others had their turn.
    read: usize,
    max_read: usize,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> MeteredIo<S> {
    /// Reports to `usage`.
    pub fn new(socket: S, usage: Usage) -> Self {
        let max_read = if usage.is_shared() { MAX_READ_SHARED } else { MAX_READ };
        Self { socket, usage, read: 0, max_read, pause: None }
    }

    /// Waits until the peer may be read.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if self.usage.may_be_read() {
                return Poll::Ready(());
            }
            self.pause = Some(Box::pin(sleep(PAUSE)));
        }
    }

    fn record(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) => self.usage.sent(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.usage.blocked(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_turn(cx));
        if self.read >= self.max_read {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.socket).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        self.read = if result.is_pending() { 0 } else { self.read + read };
        self.usage.was_read(read);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.record(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.record(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        match flushed {
            Poll::Ready(Ok(())) => self.usage.flushed(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.usage.blocked(),
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
