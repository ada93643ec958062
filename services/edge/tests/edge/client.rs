//! An HTTP/1.1 client that can send invalid requests.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// A test that waits longer for a response fails.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// One connection.
pub(crate) struct HttpClient {
    stream: BufReader<TcpStream>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The reason of an error.
    pub(crate) fn reason(&self) -> String {
        self.detail("ErrorInfo")["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The first field violation of an error: field and description.
    pub(crate) fn violation(&self) -> (String, String) {
        let violation = &self.detail("BadRequest")["fieldViolations"][0];
        let text = |name: &str| violation[name].as_str().unwrap_or_default().to_owned();
        (text("field"), text("description"))
    }

    /// The detail of this type of an error, or null.
    pub(crate) fn detail(&self, name: &str) -> serde_json::Value {
        let kind = format!("type.googleapis.com/google.rpc.{name}");
        let details = self.json()["details"].as_array().cloned().unwrap_or_default();
        details.into_iter().find(|detail| detail["@type"] == *kind).unwrap_or_default()
    }
}

impl HttpClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::from_stream(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn from_stream(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends `METHOD /path`, followed by lines of headers, and a body, which is JSON unless a header says otherwise.
    pub(crate) async fn request(&mut self, request: &str, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref();
        self.send(&write(request, body)).await;
        self.receive(request.starts_with("HEAD")).await
    }

    /// Sends these bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        timeout(TIMEOUT, self.stream.write_all(bytes)).await.unwrap().unwrap();
    }

    /// Reads one response.
    pub(crate) async fn receive(&mut self, is_head: bool) -> Reply {
        timeout(TIMEOUT, self.try_receive(is_head)).await.expect("a response in time").expect("a response")
    }

    /// Waits until the server closes the connection; false if it sends data instead.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let end = timeout(TIMEOUT, self.stream.read_u8()).await.expect("the connection is closed in time");
        end.is_err()
    }

    async fn try_receive(&mut self, is_head: bool) -> Option<Reply> {
        let first = self.line().await?;
        let status: u16 = first.split(' ').nth(1)?.parse().ok()?;
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?);
        }
        let length = headers.get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        let mut body = vec![0; if is_head { 0 } else { length.unwrap_or(0) }];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Reply { status, headers, body })
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }
}

/// A well-formed access token. The edge of these tests has no keys, and passes it on.
pub(crate) const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6InRlc3QifQ.e30.AA";

/// The bytes of a request, with [`TOKEN`] unless it has an `authorization` header.
pub(crate) fn write(request: &str, body: &[u8]) -> Vec<u8> {
    let mut lines = request.lines();
    let mut head = format!("{} HTTP/1.1\r\nhost: edge\r\n", lines.next().unwrap());
    let has = |name: &str| request.to_lowercase().contains(&format!("\n{name}:"));
    if !has("authorization") {
        write!(head, "authorization: Bearer {TOKEN}\r\n").unwrap();
    }
    for line in lines {
        write!(head, "{}\r\n", line.trim()).unwrap();
    }
    if !body.is_empty() {
        if !has("content-length") && !has("transfer-encoding") {
            write!(head, "content-length: {}\r\n", body.len()).unwrap();
        }
        if !has("content-type") {
            head += "content-type: application/json\r\n";
        }
    }
    head += "\r\n";
    [head.as_bytes(), body].concat()
}
