//! HTTP/2 by hand: frames that no library would send.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::certs::Certificates;

/// The frame type DATA (RFC 9113, section 6).
pub const DATA: u8 = 0;
/// The frame type HEADERS (RFC 9113, section 6).
pub const HEADERS: u8 = 1;
/// The frame type PRIORITY (RFC 9113, section 6).
pub const PRIORITY: u8 = 2;
/// The frame type RST_STREAM (RFC 9113, section 6).
pub const RST_STREAM: u8 = 3;
/// The frame type SETTINGS (RFC 9113, section 6).
pub const SETTINGS: u8 = 4;
/// The frame type PING (RFC 9113, section 6).
pub const PING: u8 = 6;
/// The frame type GOAWAY (RFC 9113, section 6).
pub const GOAWAY: u8 = 7;
/// The frame type WINDOW_UPDATE (RFC 9113, section 6).
pub const WINDOW_UPDATE: u8 = 8;
/// The frame type CONTINUATION (RFC 9113, section 6).
pub const CONTINUATION: u8 = 9;

/// The flag END_STREAM of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// The flag ACK of SETTINGS and PING.
pub const ACK: u8 = 1;
/// The flag END_HEADERS.
pub const END_HEADERS: u8 = 4;

/// The identifier of `SETTINGS_INITIAL_WINDOW_SIZE`.
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// How long an attacker waits for anything.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection from an address of an attacker.
pub async fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // Any address of the loopback network can be bound on Linux.
    socket.bind("127.0.0.66:0".parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header block without compression (RFC 7541, section 6.2.2).
pub fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
pub fn length(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).unwrap());
        return;
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// The fields of a request to the edge.
pub fn request<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":path", path), (":authority", "edge")]
}

/// An HTTP/2 connection after its preface.
pub struct Http2<S> {
    /// The connection.
    pub stream: S,
}

impl Http2<TcpStream> {
    /// A connection to the edge, with these settings.
    pub async fn connect(to: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::start(connect(to).await, settings).await
    }
}

impl Http2<tokio_rustls::client::TlsStream<TcpStream>> {
    /// A connection to a service, as this workload.
    pub async fn connect_mesh(
        to: SocketAddr,
        certificates: &Certificates,
        workload: &str,
        service: &str,
        settings: &[(u16, u32)],
    ) -> Self {
        let config = certificates.client_config(Some(certificates.of(workload)), &[&rustls::version::TLS13]);
        let connector = tokio_rustls::TlsConnector::from(config);
        let name = service.to_owned().try_into().unwrap();
        let stream = connector.connect(name, TcpStream::connect(to).await.unwrap()).await.unwrap();
        Self::start(stream, settings).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2<S> {
    async fn start(stream: S, settings: &[(u16, u32)]) -> Self {
        let mut this = Self { stream };
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        bytes.extend(frame(SETTINGS, 0, 0, &payload));
        this.send(&bytes).await.unwrap();
        this
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The server has closed the connection; at a timeout, it reads no more.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sending = async {
            self.stream.write_all(bytes).await?;
            // TLS keeps what the socket did not take.
            self.stream.flush().await
        };
        match timeout(TIMEOUT, sending).await {
            Ok(sent) => sent,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Sends the same bytes many times, until the server closes the connection. Returns how often.
    pub async fn flood(&mut self, times: usize, mut bytes: impl FnMut(u32) -> Vec<u8>) -> usize {
        for sent in 0..times {
            let number = u32::try_from(sent).unwrap();
            if self.send(&bytes(number)).await.is_err() {
                return sent;
            }
        }
        times
    }

    /// The next frame: type, flags, stream and payload; `None` when the connection ends.
    pub async fn receive(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let read = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            io::Result::Ok((head[3], head[4], stream, payload))
        };
        timeout(TIMEOUT, read).await.expect("a frame, or the end of the connection").ok()
    }

    /// The next frame of this type.
    pub async fn receive_kind(&mut self, wanted: u8) -> (u8, u8, u32, Vec<u8>) {
        loop {
            let frame = self.receive().await.expect("the connection is open");
            if frame.0 == wanted {
                return frame;
            }
        }
    }

    /// Reads until so many requests are answered, or the connection ends. Returns how many are.
    pub async fn answers(&mut self, count: usize) -> usize {
        let mut answered = 0;
        while answered < count {
            match self.receive().await {
                Some((HEADERS, ..)) => answered += 1,
                Some(_) => {}
                None => break,
            }
        }
        answered
    }

    /// Reads until the connection ends. Returns the error code of GOAWAY, if there was one.
    pub async fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some((kind, _, _, payload)) = self.receive().await {
            if kind == GOAWAY {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        code
    }
}
