//! What one connection uses: its requests in progress, and the bytes that it has not sent.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{Connections, ORDER};
use crate::limit::Key;

/// A response up to this size is never refused, so that an error can always be sent. It is counted all the same.
const MAX_SMALL: usize = 4 << 10;

/// The origin of times in atomics.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The usage of one connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Usage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: Key,
    max_unsent: usize,
    max_unsent_of_peer: usize,
    peer: Arc<PeerUsage>,
    connections: Connections,
    /// Requests whose response has not ended.
    requests: AtomicUsize,
    /// When the last request ended, or the connection was opened, in milliseconds.
    last_request_at: AtomicU64,
    /// When the peer last took a byte, or there was none to take, in milliseconds.
    last_progress_at: AtomicU64,
    /// Bytes of responses that have not been handed to the transport.
    held: AtomicUsize,
    /// Bytes that the transport has and the socket has not taken. What the transport adds on its own, such as frame headers,
    /// is not counted, so that this can be too small by it.
    buffered: AtomicUsize,
    closing: CancellationToken,
    evicted: CancellationToken,
}

/// The unsent bytes of one peer.
#[derive(Debug, Default)]
pub(super) struct PeerUsage {
    unsent: AtomicUsize,
}

/// The unsent bytes of one server.
#[derive(Debug)]
pub(super) struct ServerUsage {
    pub(super) unsent: Gauge,
    max_unsent: usize,
}

impl ServerUsage {
    pub(super) fn new(max_unsent: usize) -> Self {
        Self { unsent: Gauge::default(), max_unsent }
    }

    /// Adds to the sum; returns whether it exceeds the maximum.
    fn add(&self, bytes: usize) -> bool {
        let before = self.unsent.inc_by(signed(bytes));
        before.saturating_add(signed(bytes)) > signed(self.max_unsent)
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A response does not fit in the budget of its connection or peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverBudget;

impl Usage {
    pub(super) fn new(
        key: Key,
        max_unsent: usize,
        max_unsent_of_peer: usize,
        peer: Arc<PeerUsage>,
        connections: Connections,
    ) -> Self {
        let now = now();
        Self(Arc::new(Inner {
            key,
            max_unsent,
            max_unsent_of_peer,
            peer,
            connections,
            requests: AtomicUsize::new(0),
            last_request_at: AtomicU64::new(now),
            last_progress_at: AtomicU64::new(now),
            held: AtomicUsize::new(0),
            buffered: AtomicUsize::new(0),
            closing: CancellationToken::new(),
            evicted: CancellationToken::new(),
        }))
    }

    /// Counts a request until its response has ended.
    #[must_use]
    pub fn start_request(&self) -> Request {
        self.0.requests.fetch_add(1, ORDER);
        Request(self.clone())
    }

    /// Waits until the connection should close gracefully.
    pub fn closing(&self) -> WaitForCancellationFuture<'_> {
        self.0.closing.cancelled()
    }

    /// Waits until the connection must close.
    pub fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.0.evicted.cancelled()
    }

    /// The bytes of responses that the socket has not taken.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.0.held.load(ORDER) + self.0.buffered.load(ORDER)
    }

    /// Whether so much is unsent that another large response would hardly fit: its request is better refused before any work.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.unsent() >= self.0.max_unsent / 4 * 3
    }

    /// Counts the bytes of a response.
    pub(super) fn hold(&self, bytes: usize) -> Result<(), OverBudget> {
        let Inner { max_unsent, max_unsent_of_peer, peer, connections, .. } = &*self.0;
        let unsent = self.unsent();
        if unsent == 0 {
            self.progressed();
        }
        // A response may exceed a budget that nothing else uses.
        let is_large = bytes > MAX_SMALL;
        let exceeds = |used: usize, max: usize| is_large && used > 0 && used.saturating_add(bytes) > max;
        if exceeds(unsent, *max_unsent) || exceeds(peer.unsent.load(ORDER), *max_unsent_of_peer) {
            return Err(OverBudget);
        }
        self.0.held.fetch_add(bytes, ORDER);
        peer.unsent.fetch_add(bytes, ORDER);
        if connections.0.server.add(bytes) {
            connections.evict_largest(self);
        }
        Ok(())
    }

    /// The transport has taken held bytes.
    pub(super) fn hand_over(&self, bytes: usize) {
        // In this order, so that the sum never misses them.
        self.0.buffered.fetch_add(bytes, ORDER);
        take(&self.0.held, bytes);
        self.progressed();
    }

    /// The transport has taken bytes that were not held.
    pub(super) fn buffer(&self, bytes: usize) {
        self.0.buffered.fetch_add(bytes, ORDER);
        self.0.peer.unsent.fetch_add(bytes, ORDER);
        self.0.connections.0.server.add(bytes);
    }

    /// Held bytes will not be sent.
    pub(super) fn discard(&self, bytes: usize) {
        self.release(take(&self.0.held, bytes));
    }

    /// The socket has taken bytes, of which some may not be of responses.
    pub(super) fn sent(&self, bytes: usize) {
        let taken = take(&self.0.buffered, bytes);
        // The answer to a ping is no progress.
        if taken > 0 {
            self.release(taken);
            self.progressed();
        }
    }

    /// The connection has ended: its buffers are freed. Bytes of responses are discarded with their bodies.
    pub(super) fn release_all(&self) {
        self.release(take(&self.0.buffered, usize::MAX));
    }

    pub(super) fn peer_key(&self) -> Key {
        self.0.key
    }

    /// How long the connection has had no request; `None` if it has one.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        (self.0.requests.load(Ordering::SeqCst) == 0).then(|| since(&self.0.last_request_at))
    }

    /// How long the peer has taken none of the unsent bytes; `None` if there are none.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        (self.unsent() > 0).then(|| since(&self.0.last_progress_at))
    }

    pub(super) fn close(&self) {
        self.0.closing.cancel();
    }

    pub(super) fn cancel(&self) {
        self.0.evicted.cancel();
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.0.evicted.is_cancelled()
    }

    fn progressed(&self) {
        self.0.last_progress_at.store(now(), ORDER);
    }

    fn release(&self, bytes: usize) {
        take(&self.0.peer.unsent, bytes);
        self.0.connections.0.server.unsent.dec_by(signed(bytes));
    }
}

/// A request in progress.
#[derive(Debug)]
pub struct Request(Usage);

impl Request {
    /// The connection's usage.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.0
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.0.last_request_at.store(now(), ORDER);
        // In one order with the count of those that wait, so that either sees the other.
        if self.0.0.requests.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.0.connections.became_idle();
        }
    }
}

/// Subtracts up to `bytes`; returns how many.
fn take(counter: &AtomicUsize, bytes: usize) -> usize {
    let before = counter.fetch_update(ORDER, ORDER, |value| Some(value.saturating_sub(bytes))).unwrap_or_default();
    before.min(bytes)
}

fn now() -> u64 {
    u64::try_from(ORIGIN.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn since(time: &AtomicU64) -> Duration {
    Duration::from_millis(now().saturating_sub(time.load(ORDER)))
}
