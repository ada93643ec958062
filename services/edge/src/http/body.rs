//! Reads the body of a request within limits: of size, of time, and of the memory that all requests share ([`RequestBytes`]).
//!
//! After an error, the rest of the body is drained up to a limit. A response in the middle of a body would reset the
//! connection before the client has read it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use drystone_mesh::{
    connections::RequestBytes,
    error::{Error, Reason},
};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::{
    config::Config,
    http::{content_type, error::RequestError, protocol},
};

/// Reads bodies.
#[derive(Debug)]
pub(crate) struct BodyReader {
    limit: usize,
    drain_limit: usize,
    timeout: Duration,
}

impl BodyReader {
    pub(crate) fn new(config: &Config) -> Self {
        Self { limit: config.body_limit, drain_limit: config.drain_limit, timeout: config.body_time.duration() }
    }

    /// Reads a body that is JSON, or empty. `limit` bounds its size further than the configuration does; `counted` counts its bytes.
    ///
    /// # Errors
    /// `BODY_TOO_LARGE`, `UNSUPPORTED_MEDIA_TYPE`, `OVERLOADED`, `MALFORMED_BODY` for an incomplete body, `BODY_TOO_SLOW`.
    pub(crate) async fn read<B>(
        &self,
        headers: &HeaderMap,
        mut body: B,
        limit: Option<usize>,
        counted: &mut RequestBytes,
    ) -> Result<Bytes, RequestError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let limit = limit.map_or(self.limit, |limit| limit.min(self.limit));
        let deadline = Instant::now() + self.timeout;
        let content_length = body.size_hint().exact().and_then(|size| usize::try_from(size).ok());
        if content_length.is_some_and(|size| size > limit) && protocol::awaits_continue(headers) {
            // The client has not sent the body yet, so there is nothing to drain.
            return Err(too_large(limit).closing(true));
        }
        let mut buffer =
            BodyBuffer { content_length: content_length.unwrap_or_default().min(limit), ..BodyBuffer::default() };
        while let Some(data) = next_data(&mut body, deadline).await? {
            let error = if buffer.len() + data.len() > limit {
                too_large(limit)
            } else if counted.add(data.len()).is_err() {
                overloaded()
            } else {
                buffer.push(data);
                continue;
            };
            let read = buffer.len() + data.len();
            drop(buffer);
            let closes = !self.drain(body, read, deadline).await;
            return Err(error.closing(closes));
        }
        if buffer.len() > 0 {
            content_type::check(headers)?;
        }
        Ok(buffer.bytes())
    }

    /// Discards a body. Returns whether it was read to its end, so that the connection can be kept.
    pub(crate) async fn discard<B>(&self, headers: &HeaderMap, body: B) -> bool
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if body.is_end_stream() {
            return true;
        }
        !protocol::awaits_continue(headers) && self.drain(body, 0, Instant::now() + self.timeout).await
    }

    /// Reads and drops the rest of a body of which `read` bytes have been read. Returns whether its end was reached.
    async fn drain<B>(&self, mut body: B, mut read: usize, deadline: Instant) -> bool
    where
        B: Body<Data = Bytes> + Unpin,
    {
        while read <= self.drain_limit {
            match next_data(&mut body, deadline).await {
                Ok(Some(data)) => read += data.len(),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

/// The frames of a body. A body of one frame is not copied.
#[derive(Debug, Default)]
struct BodyBuffer {
    content_length: usize,
    single: Bytes,
    joined: BytesMut,
}

impl BodyBuffer {
    fn len(&self) -> usize {
        self.single.len() + self.joined.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.single = data;
            return;
        }
        if !self.single.is_empty() {
            self.joined.reserve(self.content_length.max(self.single.len() + data.len()));
            self.joined.extend_from_slice(&std::mem::take(&mut self.single));
        }
        self.joined.extend_from_slice(&data);
    }

    fn bytes(&mut self) -> Bytes {
        if self.joined.is_empty() {
            std::mem::take(&mut self.single)
        } else {
            std::mem::take(&mut self.joined).freeze()
        }
    }
}

/// The data of the next frame, trailers skipped; `None` at the end.
async fn next_data<B>(body: &mut B, deadline: Instant) -> Result<Option<Bytes>, RequestError>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        match timeout_at(deadline, body.frame()).await {
            Err(_elapsed) => {
                let error = Error::new(Reason::BodyTooSlow, "the body did not arrive in time; send it again");
                return Err(RequestError::from(error).closing(true));
            }
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Ok(Some(Err(_))) => {
                let error = Error::new(Reason::MalformedBody, "the body is incomplete; send it again");
                return Err(RequestError::from(error).closing(true));
            }
        }
    }
}

fn too_large(limit: usize) -> RequestError {
    Error::new(Reason::BodyTooLarge, format!("the body is larger than the limit of {limit} bytes")).into()
}

/// The answer to a request that does not fit in the memory of requests.
pub(crate) fn overloaded() -> RequestError {
    Error::new(Reason::Overloaded, "too many large requests at once; try again shortly")
        .retry_after(Duration::from_secs(1))
        .into()
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible};

    use drystone_mesh::{
        config::ConfigDuration,
        connections::{Connection, ConnectionLimits, Connections, PeerKind},
        limit::Key,
    };
    use http::header;
    use http_body_util::{Full, StreamBody};

    use super::*;
    use crate::http::error::Cause;

    fn headers() -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())])
    }

    fn reader(config: &Config) -> BodyReader {
        BodyReader::new(&Config { body_limit: 64 * 1024, drain_limit: 128 * 1024, ..config.clone() })
    }

    /// A connection whose requests may have 96 KiB.
    fn connection() -> Connection {
        let limits = ConnectionLimits { max_request_bytes: 96 * 1024, ..ConnectionLimits::UNLIMITED };
        let connections = Connections::new(limits);
        connections.try_register(PeerKind::Client(Key::text("client"))).unwrap().unwrap()
    }

    fn any() -> (Connection, RequestBytes) {
        let connection = connection();
        let bytes = connection.usage().start_request().bytes();
        (connection, bytes)
    }

    fn reason(error: &RequestError) -> Option<Reason> {
        match &error.cause {
            Cause::Edge(error) => Some(error.reason()),
            Cause::Upstream { .. } => None,
        }
    }

    fn frames(sizes: &[usize]) -> impl Body<Data = Bytes, Error = Infallible> + Unpin + use<> {
        let frames: VecDeque<_> =
            sizes.iter().map(|size| http_body::Frame::data(Bytes::from(vec![b' '; *size]))).collect();
        StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok)))
    }

    #[tokio::test]
    async fn a_body_of_one_frame_is_not_copied() {
        let whole = Bytes::from(vec![b' '; 5000]);
        let read =
            reader(&Config::default()).read(&headers(), Full::new(whole.clone()), None, &mut any().1).await.unwrap();
        assert_eq!(read.as_ptr(), whole.as_ptr());
        let read =
            reader(&Config::default()).read(&headers(), frames(&[1000, 2000, 7]), None, &mut any().1).await.unwrap();
        assert_eq!(read.len(), 3007);
    }

    #[tokio::test]
    async fn a_body_of_the_limit_is_accepted_and_one_byte_more_is_too_large() {
        let reader = reader(&Config::default());
        assert_eq!(reader.read(&headers(), frames(&[64 * 1024]), None, &mut any().1).await.unwrap().len(), 64 * 1024);
        let error = reader.read(&headers(), frames(&[64 * 1024, 1]), None, &mut any().1).await.unwrap_err();
        assert_eq!(reason(&error), Some(Reason::BodyTooLarge));
        assert!(!error.closes, "the body was read to its end");
        let error = reader.read(&headers(), frames(&[64 * 1024; 8]), None, &mut any().1).await.unwrap_err();
        assert!(error.closes, "the body was larger than the drain limit");
    }

    #[tokio::test]
    async fn the_smaller_limit_applies() {
        let reader = reader(&Config::default());
        assert!(reader.read(&headers(), frames(&[4096]), Some(4096), &mut any().1).await.is_ok());
        let error = reader.read(&headers(), frames(&[4097]), Some(4096), &mut any().1).await.unwrap_err();
        assert_eq!(reason(&error), Some(Reason::BodyTooLarge));
        let error = reader.read(&headers(), frames(&[64 * 1024, 1]), Some(1 << 30), &mut any().1).await.unwrap_err();
        assert_eq!(reason(&error), Some(Reason::BodyTooLarge));
    }

    #[tokio::test]
    async fn bodies_share_memory_and_release_it() {
        let (reader, connection) = (reader(&Config::default()), connection());
        let usage = connection.usage();
        let in_progress = [usage.start_request(), usage.start_request()];
        let read = async |size: usize, counted: &mut RequestBytes| {
            reader.read(&headers(), frames(&[size]), None, counted).await
        };
        let (mut first, mut second) = (in_progress[0].bytes(), in_progress[1].bytes());
        read(60 * 1024, &mut first).await.unwrap();
        let error = read(60 * 1024, &mut second).await.unwrap_err();
        assert_eq!(reason(&error), Some(Reason::Overloaded));
        assert!(read(1024, &mut second).await.is_ok(), "what was refused does not count");
        drop(first);
        assert!(read(60 * 1024, &mut in_progress[0].bytes()).await.is_ok());
    }

    #[tokio::test]
    async fn a_slow_body_times_out() {
        let reader = reader(&Config { body_time: ConfigDuration::millis(50), ..Config::default() });
        let before = Instant::now();
        let endless = StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>());
        let error = reader.read(&headers(), endless, None, &mut any().1).await.unwrap_err();
        assert_eq!(reason(&error), Some(Reason::BodyTooSlow));
        assert!(error.closes && before.elapsed() >= Duration::from_millis(50));
    }
}
