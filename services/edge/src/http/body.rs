//! The body of a request, read under limits: of size, of time, and of memory that all bodies share.
//!
//! A body that is refused is read on for a while and thrown away. Answering in the middle of it would reset the
//! connection before the client has read the answer.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use drystone_mesh::error::{Error, Reason};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    config::Config,
    http::{
        protocol,
        refusal::{Accepts, Refusal},
    },
};

/// What memory is counted in.
const PAGE: usize = 1024;
/// Bodies up to this size are not counted: the bound on connections bounds them well enough.
const UNCOUNTED: usize = 16 * PAGE;

/// Reads bodies.
#[derive(Debug)]
pub(crate) struct Intake {
    limit: usize,
    drain_limit: usize,
    time: std::time::Duration,
    memory: Arc<Semaphore>,
}

/// A whole body, and its share of the memory.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Intake {
    pub(crate) fn new(config: &Config) -> Self {
        let pages = (config.body_memory / PAGE).min(Semaphore::MAX_PERMITS);
        Self {
            limit: config.body_limit,
            drain_limit: config.drain_limit,
            time: config.body_time.duration(),
            memory: Arc::new(Semaphore::new(pages)),
        }
    }

    /// Reads a body that is JSON, or empty.
    ///
    /// # Errors
    /// `BODY_TOO_LARGE`, `UNSUPPORTED_MEDIA_TYPE`, `OVERLOADED`, or a body that breaks off or does not arrive in time.
    pub(crate) async fn read<B>(&self, headers: &HeaderMap, mut body: B) -> Result<Payload, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if body.is_end_stream() {
            return Ok(Payload::default());
        }
        let deadline = Instant::now() + self.time;
        let announced = body.size_hint().exact().and_then(|size| usize::try_from(size).ok());
        if announced.is_some_and(|size| size > self.limit) && protocol::awaits_continue(headers) {
            // The client asked before it sent anything, so there is nothing to drain.
            return Err(self.too_large().closing(true));
        }
        let mut collected =
            Collected { announced: announced.unwrap_or_default().min(self.limit), ..Collected::default() };
        while let Some(data) = next(&mut body, deadline).await? {
            let refused = if collected.len() + data.len() > self.limit {
                self.too_large()
            } else if !self.reserve(&mut collected, data.len()) {
                overloaded()
            } else {
                collected.push(data);
                continue;
            };
            let read = collected.len() + data.len();
            drop(collected);
            let closes = !self.drain(body, read, deadline).await;
            return Err(refused.closing(closes));
        }
        if collected.len() > 0 {
            content_is_json(headers)?;
        }
        Ok(Payload { bytes: collected.bytes(), _memory: collected.memory })
    }

    /// Throws a body away. Answers whether it was read to its end, so that the connection can go on.
    pub(crate) async fn discard<B>(&self, headers: &HeaderMap, body: B) -> bool
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if body.is_end_stream() {
            return true;
        }
        !protocol::awaits_continue(headers) && self.drain(body, 0, Instant::now() + self.time).await
    }

    /// Reads on after the first `read` bytes. Answers whether it came to the end.
    async fn drain<B>(&self, mut body: B, mut read: usize, deadline: Instant) -> bool
    where
        B: Body<Data = Bytes> + Unpin,
    {
        while read <= self.drain_limit {
            match next(&mut body, deadline).await {
                Ok(Some(data)) => read += data.len(),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    }

    /// Takes memory for `size` more bytes; `false` if there is none left.
    fn reserve(&self, collected: &mut Collected, size: usize) -> bool {
        if collected.len() + size <= UNCOUNTED {
            return true;
        }
        let Ok(pages) = u32::try_from(size.div_ceil(PAGE)) else { return false };
        let Ok(more) = Arc::clone(&self.memory).try_acquire_many_owned(pages) else { return false };
        match &mut collected.memory {
            Some(memory) => memory.merge(more),
            memory => *memory = Some(more),
        }
        true
    }

    fn too_large(&self) -> Refusal {
        let message = format!("the body is larger than {} bytes, which is all that is taken", self.limit);
        Error::new(Reason::BodyTooLarge, message).into()
    }
}

/// The parts of a body. One that comes in one part is never copied.
#[derive(Debug, Default)]
struct Collected {
    announced: usize,
    only: Bytes,
    joined: BytesMut,
    memory: Option<OwnedSemaphorePermit>,
}

impl Collected {
    fn len(&self) -> usize {
        self.only.len() + self.joined.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.only = data;
            return;
        }
        if !self.only.is_empty() {
            self.joined.reserve(self.announced.max(self.only.len() + data.len()));
            self.joined.extend_from_slice(&std::mem::take(&mut self.only));
        }
        self.joined.extend_from_slice(&data);
    }

    fn bytes(&mut self) -> Bytes {
        if self.joined.is_empty() { std::mem::take(&mut self.only) } else { std::mem::take(&mut self.joined).freeze() }
    }
}

/// The next part; `None` at the end.
async fn next<B>(body: &mut B, deadline: Instant) -> Result<Option<Bytes>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        match timeout_at(deadline, body.frame()).await {
            Err(_elapsed) => return Err(Refusal::too_slow()),
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                // Trailers say nothing that we want to know.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Ok(Some(Err(_))) => {
                let error = Error::new(Reason::MalformedBody, "the body breaks off before its end; send it again");
                return Err(Refusal::from(error).closing(true));
            }
        }
    }
}

fn overloaded() -> Refusal {
    Error::new(Reason::Overloaded, "too many large bodies at once; try again shortly")
        .retry_after(std::time::Duration::from_secs(1))
        .into()
}

fn content_is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |accepts: Accepts, message: &'static str| {
        Err(Refusal::from(Error::new(Reason::UnsupportedMediaType, message)).accepting(accepts))
    };
    let is_identity = |value: &HeaderValue| {
        let mut codings = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"))
    };
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) {
        return refuse(Accepts::Identity, "compressed bodies are not taken; send it without `content-encoding`");
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else {
        return refuse(Accepts::Json, "the body has no single content type; send `content-type: application/json`");
    };
    match content_type.to_str() {
        Ok(text) if is_json(text) => Ok(()),
        _ => refuse(
            Accepts::Json,
            "the body has another content type than JSON in UTF-8; send `content-type: application/json`",
        ),
    }
}

/// Whether a content type is JSON in UTF-8 (RFC 9110, section 8.3).
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    is_json
        && parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
            let value = value.trim_matches('"');
            !name.eq_ignore_ascii_case("charset") || value.eq_ignore_ascii_case("utf-8")
        })
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, time::Duration};

    use drystone_mesh::{config::ConfigDuration, error::reason_of};
    use http_body_util::{Full, StreamBody};

    use super::*;

    #[test]
    fn json_is_told_from_what_is_not() {
        for good in ["application/json", "Application/JSON", "application/json; charset=utf-8"] {
            assert!(is_json(good), "{good}");
        }
        assert!(is_json("application/json;charset=\"UTF-8\"; profile=x"));
        for bad in
            ["", "text/json", "application/jsonp", "application/json; charset=latin1", "application/json, text/plain"]
        {
            assert!(!is_json(bad), "{bad}");
        }
    }

    fn headers() -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())])
    }

    fn intake(config: &Config) -> Intake {
        Intake::new(&Config {
            body_limit: 64 * 1024,
            drain_limit: 128 * 1024,
            body_memory: 96 * 1024,
            ..config.clone()
        })
    }

    fn parts(sizes: &[usize]) -> impl Body<Data = Bytes, Error = Infallible> + Unpin + use<> {
        let frames: VecDeque<_> =
            sizes.iter().map(|size| http_body::Frame::data(Bytes::from(vec![b' '; *size]))).collect();
        StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok)))
    }

    #[tokio::test]
    async fn one_part_is_not_copied() {
        let whole = Bytes::from(vec![b' '; 5000]);
        let read = intake(&Config::default()).read(&headers(), Full::new(whole.clone())).await.unwrap();
        assert_eq!(read.bytes.as_ptr(), whole.as_ptr());
        let read = intake(&Config::default()).read(&headers(), parts(&[1000, 2000, 7])).await.unwrap();
        assert_eq!(read.bytes.len(), 3007);
    }

    #[tokio::test]
    async fn the_limit_itself_is_taken_and_one_byte_more_is_not() {
        let intake = intake(&Config::default());
        assert_eq!(intake.read(&headers(), parts(&[64 * 1024])).await.unwrap().bytes.len(), 64 * 1024);
        let refused = intake.read(&headers(), parts(&[64 * 1024, 1])).await.unwrap_err();
        assert_eq!(reason_of(&refused.status), Some(Reason::BodyTooLarge));
        assert!(!refused.closes, "the body was read to its end");
        let refused = intake.read(&headers(), parts(&[64 * 1024; 8])).await.unwrap_err();
        assert!(refused.closes, "the body was larger than what is drained");
    }

    #[tokio::test]
    async fn bodies_share_their_memory_and_give_it_back() {
        let intake = intake(&Config::default());
        let first = intake.read(&headers(), parts(&[60 * 1024])).await.unwrap();
        let refused = intake.read(&headers(), parts(&[60 * 1024])).await.unwrap_err();
        assert_eq!(reason_of(&refused.status), Some(Reason::Overloaded));
        assert!(intake.read(&headers(), parts(&[1024])).await.is_ok(), "small bodies are not counted");
        drop(first);
        assert!(intake.read(&headers(), parts(&[60 * 1024])).await.is_ok());
    }

    #[tokio::test]
    async fn a_slow_body_is_not_waited_for() {
        let intake = intake(&Config { body_time: ConfigDuration::millis(50), ..Config::default() });
        let before = Instant::now();
        let endless = StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>());
        let refused = intake.read(&headers(), endless).await.unwrap_err();
        assert_eq!(reason_of(&refused.status), Some(Reason::BodyTooSlow));
        assert!(refused.closes && before.elapsed() >= Duration::from_millis(50));
    }
}
