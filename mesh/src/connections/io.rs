//! A socket that reports what it has taken, and reads a bounded amount at a time.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Usage;

/// How many bytes of one client are read before other connections have their turn. One that sends without a pause, in frames of nine
/// bytes, would otherwise keep a thread for milliseconds.
const MAX_READ: usize = 4 << 10;

/// The same of a connection that many users share.
const MAX_READ_SHARED: usize = 16 << 10;

/// A socket whose written bytes are reported to the usage of its connection.
#[derive(Debug)]
pub struct MeteredIo<S> {
    socket: S,
    usage: Usage,
    /// The bytes read since the socket had none, or others had their turn.
    read: usize,
    max_read: usize,
}

impl<S> MeteredIo<S> {
    /// Reports to `usage`.
    pub fn new(socket: S, usage: Usage) -> Self {
        let max_read = if usage.is_shared() { MAX_READ_SHARED } else { MAX_READ };
        Self { socket, usage, read: 0, max_read }
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
        if self.read >= self.max_read {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        self.read = if read.is_pending() { 0 } else { self.read + buffer.filled().len() - before };
        read
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
