//! The socket of a connection, which can be closed while streams use it.
//!
//! hyper's client hands the socket to a task that lives as long as a stream does, also when everything else of the connection
//! has been dropped. So the socket is closed from outside, by a second handle.

use std::{
    io,
    net::{self, Shutdown},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Closes a socket, and tells when it is closed.
#[derive(Debug)]
pub(super) struct Closer {
    socket: net::TcpStream,
    dropped: CancellationToken,
}

/// A stream over the socket, with the end of which [`Closer::closed`] returns.
#[derive(Debug)]
pub(super) struct ClosableIo<S> {
    stream: S,
    _dropped: DropGuard,
}

impl Closer {
    /// Takes a second handle of a socket.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub(super) fn of(socket: TcpStream) -> io::Result<(TcpStream, Self)> {
        let socket = socket.into_std()?;
        let closer = Self { socket: socket.try_clone()?, dropped: CancellationToken::new() };
        Ok((TcpStream::from_std(socket)?, closer))
    }

    /// The stream over the socket.
    pub(super) fn track<S>(&self, stream: S) -> ClosableIo<S> {
        ClosableIo { stream, _dropped: self.dropped.clone().drop_guard() }
    }

    /// Waits until the stream has been dropped.
    pub(super) async fn closed(&self) {
        self.dropped.cancelled().await;
    }

    /// Closes the socket at once: reads and writes end, and with them the streams.
    pub(super) fn close(&self) {
        // A peer may have closed it already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClosableIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClosableIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
