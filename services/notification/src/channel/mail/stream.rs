//! Connections to mail servers, guarded: what a server sends is bounded and plain ASCII.
//!
//! STARTTLS is spoken here and not in the mail library, which would keep what a server, or somebody on the way, has sent with the reply
//! before the encryption, and take it for replies to what is sent encrypted (as in CVE-2011-0411).

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use drystone_mesh::https::Tls;
use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

/// How much a server may send in reply to what it was sent last, in bytes.
const MAX_REPLY: usize = 8 * 1024;
/// The longest line of a reply before the encryption, and the number of lines.
const MAX_LINE: usize = 2048;
const MAX_LINES: usize = 100;

/// What the mail library reads first on a connection whose greeting was read here.
const GREETING: &[u8] = b"220 ready\r\n";

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A connection to a mail server.
pub(super) struct GuardedStream {
    inner: Box<dyn Stream>,
    address: SocketAddr,
    /// Read before what the server sends.
    prefix: &'static [u8],
    /// Bytes that were read since something was written.
    received: usize,
}

impl GuardedStream {
    /// Without encryption.
    pub(super) fn plain(stream: TcpStream) -> io::Result<Self> {
        let address = stream.peer_addr()?;
        Ok(Self { inner: Box::new(stream), address, prefix: b"", received: 0 })
    }

    /// Encrypted from the start (RFC 8314).
    pub(super) async fn tls(stream: TcpStream, tls: &Tls) -> io::Result<Self> {
        let address = stream.peer_addr()?;
        Ok(Self { inner: Box::new(tls.connect(stream).await?), address, prefix: b"", received: 0 })
    }

    /// Encrypted after STARTTLS (RFC 3207), without which it is an error.
    pub(super) async fn starttls(mut stream: TcpStream, tls: &Tls, hello: &str) -> io::Result<Self> {
        let address = stream.peer_addr()?;
        let greeting = reply(&mut stream).await?;
        expect(&greeting, "220", "greets with")?;
        stream.write_all(format!("EHLO {hello}\r\n").as_bytes()).await?;
        let extensions = reply(&mut stream).await?;
        expect(&extensions, "250", "replies to EHLO")?;
        let is_starttls =
            |line: &String| line.get(4..).is_some_and(|text| text.trim().eq_ignore_ascii_case("STARTTLS"));
        if !extensions.iter().any(is_starttls) {
            return Err(io::Error::other("it does not offer STARTTLS; set notification.smtp.tls to what it speaks"));
        }
        stream.write_all(b"STARTTLS\r\n").await?;
        expect(&reply(&mut stream).await?, "220", "replies to STARTTLS")?;
        // What was sent too early is taken for the handshake, which fails.
        Ok(Self { inner: Box::new(tls.connect(stream).await?), address, prefix: GREETING, received: 0 })
    }
}

/// Reads one reply, and nothing after it.
async fn reply(stream: &mut TcpStream) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    while lines.len() < MAX_LINES {
        let mut line = Vec::new();
        loop {
            let byte = stream.read_u8().await?;
            if byte == b'\n' {
                break;
            }
            line.push(if byte.is_ascii() { byte } else { b'?' });
            if line.len() > MAX_LINE {
                return Err(too_long());
            }
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let is_last = line.as_bytes().get(3) != Some(&b'-');
        lines.push(line);
        if is_last {
            return Ok(lines);
        }
    }
    Err(too_long())
}

fn expect(lines: &[String], code: &str, what: &str) -> io::Result<()> {
    let last = lines.last().map_or("", String::as_str);
    let shown = last.get(..3).unwrap_or("nothing");
    if shown == code { Ok(()) } else { Err(io::Error::other(format!("it {what} {shown}"))) }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it sends a reply that is too long")
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let (now, later) = self.prefix.split_at(self.prefix.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.prefix = later;
            return Poll::Ready(Ok(()));
        }
        if self.received > MAX_REPLY {
            return Poll::Ready(Err(too_long()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *self.inner).poll_read(context, buffer))?;
        let read = &mut buffer.filled_mut()[before..];
        // Texts in other encodings are no reason to take a reply for none.
        read.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
        let count = read.len();
        self.received += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.received = 0;
        Pin::new(&mut *self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(context)
    }
}

impl AsyncTokioStream for GuardedStream {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl fmt::Debug for GuardedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedStream").field("address", &self.address).finish_non_exhaustive()
    }
}
