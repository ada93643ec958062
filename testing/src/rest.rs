//! An HTTP client with one connection per request, so that a dropped connection is noticed.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A client of an HTTP server.
#[derive(Debug, Clone, Copy)]
pub struct RestClient(SocketAddr);

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct RestRequest {
    server: SocketAddr,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A response.
#[derive(Debug)]
pub struct RestResponse {
    /// Method and path of the request, for messages.
    request: String,
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The raw body.
    pub body: Bytes,
}

impl RestClient {
    /// A client of the server at this address.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self(address)
    }

    /// The address of the server.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.0
    }

    /// A request with any method.
    #[must_use]
    pub fn request(self, method: Method, path: &str) -> RestRequest {
        RestRequest { server: self.0, method, path: path.to_owned(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// GET
    #[must_use]
    pub fn get(self, path: &str) -> RestRequest {
        self.request(Method::GET, path)
    }

    /// DELETE
    #[must_use]
    pub fn delete(self, path: &str) -> RestRequest {
        self.request(Method::DELETE, path)
    }

    /// POST, with a JSON body.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "every caller writes the value in place")]
    pub fn post(self, path: &str, body: Value) -> RestRequest {
        self.request(Method::POST, path).json(&body)
    }

    /// PATCH, with a JSON body.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "every caller writes the value in place")]
    pub fn patch(self, path: &str, body: Value) -> RestRequest {
        self.request(Method::PATCH, path).json(&body)
    }
}

impl RestRequest {
    /// The same request to another server.
    #[must_use]
    pub fn to_server(self, server: RestClient) -> Self {
        Self { server: server.0, ..self }
    }

    /// Adds an access token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Appends a header, also if there is one with this name.
    ///
    /// # Panics
    /// If the name or the value is invalid.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().expect("the header value is valid"));
        self
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Sets a body with this content type.
    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    /// Sends the request.
    ///
    /// # Panics
    /// If there is no complete response.
    pub async fn send(self) -> RestResponse {
        let request = format!("{} {}", self.method, self.path);
        self.try_send().await.unwrap_or_else(|error| panic!("{request} has no response: {error}"))
    }

    /// Sends the request.
    ///
    /// # Errors
    /// If there is no complete response.
    pub async fn try_send(self) -> Result<RestResponse, Box<dyn std::error::Error + Send + Sync>> {
        let description = format!("{} {}", self.method, self.path);
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
        Ok(RestResponse { request: description, status: head.status.as_u16(), headers: head.headers, body })
    }
}

impl RestResponse {
    /// Asserts that the response has this status, and returns it.
    ///
    /// # Panics
    /// If it has another.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "often only the assertion is needed")]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "response to {}: {}", self.request, self.text());
        self
    }

    /// Asserts that the response is a well-formed error with `reason` and its status, and returns it.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "often only the assertion is needed")]
    pub fn refused(self, reason: drystone::Reason) -> Self {
        let error = self.json();
        assert_eq!(self.reason(), reason.name(), "status {} of {}: {error}", self.status, self.request);
        assert_eq!(self.status, reason.http(), "{}: {error}", self.request);
        assert_eq!(error["code"], reason.code() as i32, "{}: {error}", self.request);
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{}: {error}", self.request);
        self
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If the body or the content type is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "status {} of {}", self.status, self.request);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: {error}: {}", self.request, self.text()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header; empty if it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or("(not ASCII)"))
    }

    /// The `reason` of the `google.rpc.ErrorInfo` in the body.
    ///
    /// # Panics
    /// If there is none, or its domain is not Drystone's.
    #[track_caller]
    pub fn reason(&self) -> String {
        let info = self.detail("google.rpc.ErrorInfo");
        let info = info.unwrap_or_else(|| panic!("the response to {} has no reason: {}", self.request, self.text()));
        assert_eq!(info["domain"], drystone::Reason::DOMAIN, "{info}");
        info["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The fields in the `google.rpc.BadRequest` of the body.
    #[must_use]
    #[track_caller]
    pub fn fields(&self) -> Vec<String> {
        let request = self.detail("google.rpc.BadRequest").unwrap_or_default();
        let violations = request["fieldViolations"].as_array().cloned().unwrap_or_default();
        violations.iter().map(|violation| violation["field"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The error detail of this type in the body.
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
    address.unwrap_or_else(|| panic!("`{url}` in the ready file is not an `http://ADDRESS` URL"))
}
