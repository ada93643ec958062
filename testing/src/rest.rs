//! HTTP as a client outside speaks it: one connection a call, so that a dropped one is seen.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// An HTTP server.
#[derive(Debug, Clone, Copy)]
pub struct Rest(SocketAddr);

/// A call that is being put together.
#[derive(Debug, Clone)]
pub struct Call {
    server: SocketAddr,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The call, for messages.
    call: String,
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as it came.
    pub body: Bytes,
}

impl Rest {
    /// The server at this address.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self(address)
    }

    /// Where it is.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.0
    }

    /// A call with any method.
    #[must_use]
    pub fn call(self, method: Method, path: &str) -> Call {
        Call { server: self.0, method, path: path.to_owned(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// GET
    #[must_use]
    pub fn get(self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// DELETE
    #[must_use]
    pub fn delete(self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    /// POST, with a JSON body.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "every caller writes the value in place")]
    pub fn post(self, path: &str, body: Value) -> Call {
        self.call(Method::POST, path).json(&body)
    }

    /// PATCH, with a JSON body.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "every caller writes the value in place")]
    pub fn patch(self, path: &str, body: Value) -> Call {
        self.call(Method::PATCH, path).json(&body)
    }
}

impl Call {
    /// The same call to another server.
    #[must_use]
    pub fn at(self, server: Rest) -> Self {
        Self { server: server.0, ..self }
    }

    /// With an access token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// With a header; one of the same name stays beside it.
    ///
    /// # Panics
    /// If name or value are invalid.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().expect("the value can stand in a header"));
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// With a body of this content type.
    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    /// Makes the call.
    ///
    /// # Panics
    /// If there is no whole answer.
    pub async fn send(self) -> Answer {
        let call = format!("{} {}", self.method, self.path);
        self.try_send().await.unwrap_or_else(|error| panic!("{call} was not answered: {error}"))
    }

    /// Makes the call.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn try_send(self) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let call = format!("{} {}", self.method, self.path);
        let mut request = Request::builder().method(self.method).uri(self.path).body(Full::new(self.body))?;
        *request.headers_mut() = self.headers;
        request.headers_mut().insert(header::HOST, self.server.to_string().parse()?);

        let stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        connection.abort();
        Ok(Answer { call, status: head.status.as_u16(), headers: head.headers, body })
    }
}

impl Answer {
    /// The answer itself, if it has this status.
    ///
    /// # Panics
    /// If it has another.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "often nothing more is asked of it")]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} was answered: {}", self.call, self.text());
        self
    }

    /// The answer itself, if it is a refusal for `reason` with the status that belongs to it, in the shape that every
    /// refusal has.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "often nothing more is asked of it")]
    pub fn refused(self, reason: drystone::Reason) -> Self {
        let error = self.json();
        assert_eq!(self.reason(), reason.name(), "{} was answered {}: {error}", self.call, self.status);
        assert_eq!(self.status, reason.http(), "{}: {error}", self.call);
        assert_eq!(error["code"], reason.code() as i32, "{}: {error}", self.call);
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{}: {error}", self.call);
        self
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none, or is not declared to be.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "{} was answered {}", self.call, self.status);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: {error}: {}", self.call, self.text()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or("(not ASCII)"))
    }

    /// The `reason` of the `google.rpc.ErrorInfo` in the body.
    ///
    /// # Panics
    /// If there is none of ours.
    #[track_caller]
    pub fn reason(&self) -> String {
        let info = self.detail("google.rpc.ErrorInfo");
        let info = info.unwrap_or_else(|| panic!("{} was answered without a reason: {}", self.call, self.text()));
        assert_eq!(info["domain"], drystone::Reason::DOMAIN, "{info}");
        info["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The fields that the `google.rpc.BadRequest` in the body names.
    #[must_use]
    #[track_caller]
    pub fn fields(&self) -> Vec<String> {
        let request = self.detail("google.rpc.BadRequest").unwrap_or_default();
        let violations = request["fieldViolations"].as_array().cloned().unwrap_or_default();
        violations.iter().map(|violation| violation["field"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The detail of this type in an error body.
    #[must_use]
    #[track_caller]
    pub fn detail(&self, name: &str) -> Option<Value> {
        let url = format!("type.googleapis.com/{name}");
        self.json()["details"].as_array()?.iter().find(|detail| detail["@type"] == url).cloned()
    }
}

/// The address in a URL such as `http://127.0.0.1:8080`.
pub fn address(url: &str) -> SocketAddr {
    let address = url.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse().ok());
    address.unwrap_or_else(|| panic!("`{url}` in the ready file is no URL of an address"))
}
