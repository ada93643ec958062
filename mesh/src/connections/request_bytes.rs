//! The bytes of requests in progress: their heads, and what has been read of their bodies.

use std::sync::{Arc, atomic::Ordering};

use super::{
    ORDER, Usage,
    peer::PeerUsage,
    usage::{signed, take},
};

/// A request that is alone on its connection may have so many bytes, whatever others have, and they count for nobody: what they can be
/// together is bounded by the number of connections.
const MAX_ALONE: usize = 32 << 10;

/// What a field of a head costs besides its name and its value, as HTTP/2 counts it (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// The bytes of the request do not fit in the budget of its peer or of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyRequestBytes;

/// The bytes of one request, which count until this is dropped.
#[derive(Debug)]
pub struct RequestBytes {
    usage: Usage,
    /// The client, behind a proxy.
    client: Option<Arc<PeerUsage>>,
    /// All of them.
    held: usize,
    /// Those that count.
    counted: usize,
}

impl RequestBytes {
    pub(super) fn new(usage: Usage, client: Option<Arc<PeerUsage>>) -> Self {
        Self { usage, client, held: 0, counted: 0 }
    }

    /// Who pays for them.
    fn peer(&self) -> &PeerUsage {
        let Usage(inner) = &self.usage;
        self.client.as_ref().unwrap_or(&inner.peer)
    }

    /// Counts the head of the request.
    ///
    /// # Errors
    /// [`TooManyRequestBytes`]: they are not counted, and are to be dropped.
    pub fn add_head(&mut self, uri: &http::Uri, headers: &http::HeaderMap) -> Result<(), TooManyRequestBytes> {
        let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD);
        let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
        self.add(target + fields.sum::<usize>())
    }

    /// Counts further bytes.
    ///
    /// # Errors
    /// [`TooManyRequestBytes`]: they are not counted, and are to be dropped.
    pub fn add(&mut self, bytes: usize) -> Result<(), TooManyRequestBytes> {
        let Usage(inner) = &self.usage;
        if inner.requests.load(Ordering::SeqCst) <= 1 && self.held + bytes <= MAX_ALONE {
            self.held += bytes;
            return Ok(());
        }
        let limits = &inner.connections.0.limits;
        let max_of_peer = match self.client {
            Some(_) => limits.max_request_bytes_per_peer,
            None => inner.max_request_bytes_of_peer,
        };
        let of_peer = self.peer().request_bytes.fetch_add(bytes, ORDER) + bytes;
        let in_all = inner.connections.0.server.request_bytes.inc_by(signed(bytes)).saturating_add(signed(bytes));
        self.counted += bytes;
        if of_peer <= max_of_peer && in_all <= signed(limits.max_request_bytes) {
            self.held += bytes;
            return Ok(());
        }
        self.release(bytes);
        Err(TooManyRequestBytes)
    }

    /// The bytes have been used and dropped: a message of a stream, before the next one.
    pub fn clear(&mut self) {
        self.held = 0;
        self.release(self.counted);
    }

    fn release(&mut self, bytes: usize) {
        let Usage(inner) = &self.usage;
        take(&self.peer().request_bytes, bytes);
        inner.connections.0.server.request_bytes.dec_by(signed(bytes));
        self.counted -= bytes;
    }
}

impl Drop for RequestBytes {
    fn drop(&mut self) {
        self.clear();
    }
}
