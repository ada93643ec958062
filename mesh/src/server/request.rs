//! Checks of gRPC over HTTP/2: method, content type, and the number and size of messages. Neither hyper nor tonic checks
//! them; tonic serves any method and content type.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tonic::{Status, body::Body};

use crate::{
    connections::RequestBytes,
    error::{BoxError, Error, Reason},
};

/// The content type of gRPC; protobuf is its default message format.
const GRPC: &str = "application/grpc";

/// The length of the prefix of each message: a flag, and the message's length in four bytes.
const PREFIX_LENGTH: usize = 5;

/// Checks the HTTP method and the content type. This is the first check: a client that does not use gRPC cannot read any
/// other error, which has HTTP status 200.
pub(super) fn check(method: &Method, headers: &HeaderMap) -> Result<(), Error> {
    if method != Method::POST {
        return Err(Error::new(Reason::MethodNotAllowed, "gRPC requests are sent with POST"));
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(content_type), None) if is_grpc(content_type) => Ok(()),
        _ => {
            let text = "the request is not gRPC with protobuf messages; send `content-type: application/grpc`";
            Err(Error::new(Reason::UnsupportedMediaType, text))
        }
    }
}

/// `application/grpc` or `application/grpc+proto`, with or without parameters. Other message formats, such as `+json`,
/// cannot be decoded here.
fn is_grpc(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
    let Some((name, format)) = essence.split_at_checked(GRPC.len()) else { return false };
    name.eq_ignore_ascii_case(GRPC) && (format.is_empty() || format.eq_ignore_ascii_case("+proto"))
}

/// The response to a request that [`check`] rejects: an HTTP status for clients that do not use gRPC, and the gRPC status.
pub(super) fn reject(error: Error) -> Response<Body> {
    let reason = error.reason();
    let (name, value) = match reason {
        Reason::MethodNotAllowed => (ALLOW, "POST"),
        _ => (ACCEPT, GRPC),
    };
    let mut response = Status::from(error).into_http();
    *response.status_mut() = StatusCode::from_u16(reason.http()).unwrap_or(StatusCode::BAD_REQUEST);
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

/// How much of a rejected request is drained, in bytes: more than the first message of most calls.
const MAX_DISCARDED: usize = 64 << 10;

/// How long a rejected request is drained.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Drains the body of a rejected request, within bounds. Otherwise the stream is reset, and h2 closes a connection, with the
/// calls of other clients on it, after 1,024 frames for reset streams.
pub(super) async fn discard(mut body: Incoming) {
    let read = async {
        let mut left = MAX_DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    };
    // Whether drained or timed out, the body is dropped now.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, read).await;
}

/// The maximum length of `grpc-encoding`, in bytes. No encoding has a longer name.
const MAX_ENCODING_LENGTH: usize = 32;

/// Replaces an overlong `grpc-encoding`: tonic quotes it in its status, which could exceed the caller's header limit.
pub(super) fn bound_encoding(headers: &mut HeaderMap) {
    if let Some(encoding) = headers.get_mut("grpc-encoding")
        && encoding.len() > MAX_ENCODING_LENGTH
    {
        *encoding = HeaderValue::from_static("unknown");
    }
}

/// The body of a request, with checks of the number and size of messages, and of the memory that all requests share. tonic uses the first of several messages of a unary
/// RPC, answers INTERNAL if there is none, and OUT_OF_RANGE if one is too large.
pub(super) struct MessageLimitBody<B> {
    body: B,
    /// Whether the RPC has exactly one request message.
    single: bool,
    /// The maximum size of a message, in bytes.
    max_length: usize,
    prefix: [u8; PREFIX_LENGTH],
    /// The received bytes of the current message's prefix.
    prefix_read: usize,
    /// The missing bytes of the current message.
    remaining: usize,
    /// Whether a message has started.
    any: bool,
    failed: bool,
    /// Counts the bytes of the current message.
    counted: RequestBytes,
}

impl<B> MessageLimitBody<B> {
    pub(super) fn new(body: B, single: bool, max_length: usize, counted: RequestBytes) -> Self {
        let prefix = [0; PREFIX_LENGTH];
        Self { body, single, max_length, prefix, prefix_read: 0, remaining: 0, any: false, failed: false, counted }
    }

    fn read(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            if self.remaining > 0 {
                let taken = self.remaining.min(data.len());
                self.counted.add(taken).map_err(|_| Status::from(overloaded()))?;
                self.remaining -= taken;
                data = &data[taken..];
                continue;
            }
            if self.single && self.any && self.prefix_read == 0 {
                return Err(Status::unimplemented("the RPC takes one message, and the request has several"));
            }
            self.any = true;
            // The message before has been read.
            self.counted.clear();
            let taken = (PREFIX_LENGTH - self.prefix_read).min(data.len());
            let (head, rest) = data.split_at(taken);
            self.prefix[self.prefix_read..self.prefix_read + taken].copy_from_slice(head);
            self.prefix_read += taken;
            data = rest;
            if self.prefix_read == PREFIX_LENGTH {
                self.prefix_read = 0;
                let [_, length @ ..] = self.prefix;
                self.remaining = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if self.remaining > self.max_length {
                    let (length, most) = (self.remaining, self.max_length);
                    let text = format!("the message is {length} bytes long, and at most {most} are accepted");
                    return Err(Status::resource_exhausted(text));
                }
            }
        }
        Ok(())
    }
}

/// The answer to a request that does not fit in the memory of requests.
pub(super) fn overloaded() -> Error {
    let text = "too many large requests at once; try again shortly";
    Error::new(Reason::Overloaded, text).retry_after(Duration::from_secs(1))
}

impl<B> http_body::Body for MessageLimitBody<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose().map_err(Into::into)?;
        let outcome = match frame.as_ref().map(Frame::data_ref) {
            Some(Some(data)) => self.read(data),
            // Trailers or the end.
            Some(None) | None if self.single && !self.any => {
                Err(Status::unimplemented("the RPC takes one message, and the request has none"))
            }
            Some(None) | None => Ok(()),
        };
        self.failed = outcome.is_err();
        Poll::Ready(match outcome {
            Ok(()) => frame.map(Ok),
            Err(status) => Some(Err(status.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        // A missing message is an error that has not been returned yet.
        self.failed || (self.body.is_end_stream() && (self.any || !self.single))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use tonic::Code;

    use super::*;
    use crate::{
        connections::{ConnectionLimits, Connections, PeerKind},
        limit::Key,
    };

    fn checked(types: &[&'static str]) -> Option<Reason> {
        let mut all = HeaderMap::new();
        for value in types {
            all.append(CONTENT_TYPE, HeaderValue::from_static(value));
        }
        check(&Method::POST, &all).err().map(|error| error.reason())
    }

    #[test]
    fn grpc_with_protobuf_messages_is_accepted() {
        for value in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC",
            "application/grpc;charset=utf-8",
            "application/grpc+proto ; a=b",
        ] {
            assert_eq!(checked(&[value]), None, "{value}");
        }
    }

    #[test]
    fn other_content_types_are_rejected() {
        for value in [
            "",
            "application/json",
            "application/grpc+json",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpcx",
            "application/grpc+",
            "application/grp",
            "text/plain; application/grpc",
            "application/grpc, application/json",
        ] {
            assert_eq!(checked(&[value]), Some(Reason::UnsupportedMediaType), "{value}");
        }
        assert_eq!(checked(&[]), Some(Reason::UnsupportedMediaType));
        assert_eq!(checked(&["application/grpc", "application/grpc"]), Some(Reason::UnsupportedMediaType));
    }

    async fn read(pieces: &[&'static [u8]], single: bool) -> Result<usize, Code> {
        let frames: Vec<_> =
            pieces.iter().map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from_static(piece)))).collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let connections =
            Connections::new(ConnectionLimits { max_request_bytes: 64 << 10, ..ConnectionLimits::UNLIMITED });
        let connection = connections.try_register(PeerKind::Client(Key::text("peer"))).unwrap().unwrap();
        let body = MessageLimitBody::new(body, single, 8, connection.usage().start_request().bytes());
        body.collect().await.map(|all| all.to_bytes().len()).map_err(|error| Status::from_error(error).code())
    }

    #[tokio::test]
    async fn a_unary_rpc_requires_exactly_one_message() {
        assert_eq!(read(&[b"\0\0\0\0\x03abc"], true).await, Ok(8));
        assert_eq!(read(&[b"\0", b"\0\0\0\x03", b"a", b"bc"], true).await, Ok(8));
        assert_eq!(read(&[b"\0\0\0\0\0"], true).await, Ok(5));
        assert_eq!(read(&[], true).await, Err(Code::Unimplemented));
        assert_eq!(read(&[b"\0\0\0\0\x01a\0\0\0\0\0"], true).await, Err(Code::Unimplemented));
        assert_eq!(read(&[b"\0\0\0\0\0", b"\0"], true).await, Err(Code::Unimplemented));
    }

    #[tokio::test]
    async fn a_stream_accepts_any_number_of_messages() {
        assert_eq!(read(&[], false).await, Ok(0));
        assert_eq!(read(&[b"\0\0\0\0\x01a\0\0\0\0\0", b"\0\0\0\0\x02bc"], false).await, Ok(18));
    }

    #[tokio::test]
    async fn an_oversized_message_is_rejected_before_it_is_received() {
        assert_eq!(read(&[b"\0\0\0\0\x08"], true).await, Ok(5));
        assert_eq!(read(&[b"\0\0\0\0\x09"], true).await, Err(Code::ResourceExhausted));
        assert_eq!(read(&[b"\0\0\0\0\x01a\0\xff\xff\xff\xff"], false).await, Err(Code::ResourceExhausted));
    }
}
