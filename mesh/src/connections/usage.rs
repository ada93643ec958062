//! What one connection uses: its requests in progress, and the bytes that it has not sent.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{Connections, ORDER};
use crate::{clock::Clock, limit::Key};

/// A response up to this size is never refused, so that an error can always be sent. It is counted all the same.
const MAX_SMALL: usize = 4 << 10;

/// The usage of one connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Usage(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    key: Key,
    max_unsent: usize,
    max_unsent_of_peer: usize,
    pub(super) max_request_bytes_of_peer: usize,
    pub(super) peer: Arc<PeerUsage>,
    pub(super) connections: Connections,
    /// The number of requests whose response has not ended.
    pub(super) requests: AtomicUsize,
    /// Those requests.
    progress: Mutex<Requests>,
    /// When the last request ended, or the connection was opened, in milliseconds.
    last_request_at: AtomicU64,
    /// Since when the socket takes nothing; [`NEVER`] if it does.
    blocked_since: AtomicU64,
    /// Bytes of responses that have not been handed to the transport.
    held: AtomicUsize,
    /// Bytes that the transport has and the socket has not taken. What the transport adds on its own, such as frame headers,
    /// is not counted, so that this can be too small by it.
    buffered: AtomicUsize,
    /// Whether the connection has ended or is evicted: its bytes no longer count.
    is_closed: AtomicBool,
    closing: CancellationToken,
    evicted: CancellationToken,
}

/// The requests of one connection: since when each has data that the transport has not taken, or has taken and could not send;
/// [`NEVER`] if it has none.
#[derive(Debug, Default)]
struct Requests {
    last_id: u64,
    waiting_since: HashMap<u64, Arc<AtomicU64>>,
}

/// No time.
const NEVER: u64 = u64::MAX;

/// What one connection and its peer may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) unsent: usize,
    pub(super) unsent_of_peer: usize,
    pub(super) request_bytes_of_peer: usize,
}

impl Budget {
    pub(super) const UNLIMITED: Self =
        Self { unsent: usize::MAX, unsent_of_peer: usize::MAX, request_bytes_of_peer: usize::MAX };
}

/// The bytes of one peer.
#[derive(Debug, Default)]
pub(super) struct PeerUsage {
    pub(super) unsent: AtomicUsize,
    pub(super) request_bytes: AtomicUsize,
}

/// The bytes of one server.
#[derive(Debug)]
pub(super) struct ServerUsage {
    pub(super) unsent: Gauge,
    pub(super) request_bytes: Gauge,
    max_unsent: usize,
}

impl ServerUsage {
    pub(super) fn new(max_unsent: usize, unsent: Gauge, request_bytes: Gauge) -> Self {
        Self { unsent, request_bytes, max_unsent }
    }

    /// Adds to the sum; returns whether it exceeds the maximum. One response alone may.
    fn add(&self, bytes: usize) -> bool {
        let before = self.unsent.inc_by(signed(bytes));
        before > 0 && before.saturating_add(signed(bytes)) > signed(self.max_unsent)
    }
}

pub(super) fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A response does not fit in the budget of its connection or peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OverBudget;

impl Usage {
    pub(super) fn new(key: Key, budget: Budget, peer: Arc<PeerUsage>, connections: Connections) -> Self {
        let now = now();
        Self(Arc::new(Inner {
            key,
            max_unsent: budget.unsent,
            max_unsent_of_peer: budget.unsent_of_peer,
            max_request_bytes_of_peer: budget.request_bytes_of_peer,
            peer,
            connections,
            requests: AtomicUsize::new(0),
            progress: Mutex::default(),
            last_request_at: AtomicU64::new(now),
            blocked_since: AtomicU64::new(NEVER),
            held: AtomicUsize::new(0),
            buffered: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            closing: CancellationToken::new(),
            evicted: CancellationToken::new(),
        }))
    }

    /// Counts a request until its response has ended.
    #[must_use]
    pub fn start_request(&self) -> Request {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        let waiting_since = Arc::new(AtomicU64::new(NEVER));
        let mut requests = self.lock_requests();
        requests.last_id += 1;
        let id = requests.last_id;
        requests.waiting_since.insert(id, waiting_since.clone());
        drop(requests);
        Request { usage: self.clone(), id, waiting_since }
    }

    fn lock_requests(&self) -> MutexGuard<'_, Requests> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the connection should close gracefully.
    pub(super) fn closing(&self) -> WaitForCancellationFuture<'_> {
        self.0.closing.cancelled()
    }

    /// Waits until the connection must close.
    pub(super) fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.0.evicted.cancelled()
    }

    /// The bytes of responses that the socket has not taken.
    pub(super) fn unsent(&self) -> usize {
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
        // A response may exceed a budget that nothing else uses.
        let is_large = bytes > MAX_SMALL;
        let exceeds = |used: usize, max: usize| is_large && used > 0 && used.saturating_add(bytes) > max;
        if exceeds(self.unsent(), *max_unsent) || exceeds(peer.unsent.load(ORDER), *max_unsent_of_peer) {
            return Err(OverBudget);
        }
        self.0.held.fetch_add(bytes, ORDER);
        peer.unsent.fetch_add(bytes, ORDER);
        if connections.0.server.add(bytes) && !connections.evict_largest(self) && is_large {
            self.discard(bytes);
            return Err(OverBudget);
        }
        Ok(())
    }

    /// The transport has taken held bytes.
    pub(super) fn hand_over(&self, bytes: usize) {
        let moved = take(&self.0.held, bytes);
        self.0.buffered.fetch_add(moved, Ordering::SeqCst);
        self.release_if_closed();
    }

    /// The transport has taken bytes that were not held.
    pub(super) fn buffer(&self, bytes: usize) {
        self.0.peer.unsent.fetch_add(bytes, ORDER);
        self.0.connections.0.server.add(bytes);
        self.0.buffered.fetch_add(bytes, Ordering::SeqCst);
        self.release_if_closed();
    }

    /// Held bytes will not be sent.
    pub(super) fn discard(&self, bytes: usize) {
        self.release(take(&self.0.held, bytes));
    }

    /// A response was reset: the transport drops what it has of it, at most these bytes.
    pub(super) fn retract(&self, bytes: usize) {
        self.release(take(&self.0.buffered, bytes));
    }

    /// The socket has taken bytes, of which some may not be of responses.
    pub(super) fn sent(&self, bytes: usize) {
        self.0.blocked_since.store(NEVER, ORDER);
        self.release(take(&self.0.buffered, bytes));
    }

    /// The socket takes nothing.
    pub(super) fn blocked(&self) {
        let _ = self.0.blocked_since.compare_exchange(NEVER, now(), ORDER, ORDER);
    }

    /// The transport has written what it may. Without a response in progress it has nothing left but the ends of responses for
    /// which the peer has opened no window.
    pub(super) fn flushed(&self) {
        if self.0.requests.load(Ordering::SeqCst) == 0 {
            self.release(take(&self.0.buffered, usize::MAX));
        }
    }

    /// The connection ends: nothing counts any more.
    pub(super) fn release_all(&self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
        self.release(take(&self.0.held, usize::MAX));
        self.release(take(&self.0.buffered, usize::MAX));
    }

    fn release_if_closed(&self) {
        if self.0.is_closed.load(Ordering::SeqCst) {
            self.release(take(&self.0.buffered, usize::MAX));
        }
    }

    pub(super) fn peer_key(&self) -> Key {
        self.0.key
    }

    /// How long the connection has had no request; `None` if it has one.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        (self.0.requests.load(Ordering::SeqCst) == 0).then(|| since(&self.0.last_request_at))
    }

    /// How long the peer has taken nothing of a response that is ready for it; `None` if there is none. What else the peer
    /// reads, such as the answers to its pings, is no progress.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        let requests = self.lock_requests();
        let waiting = requests.waiting_since.values().map(|since| since.load(ORDER)).min();
        let since = waiting.unwrap_or(NEVER).min(self.0.blocked_since.load(ORDER));
        (since != NEVER).then(|| Duration::from_millis(now().saturating_sub(since)))
    }

    /// The unsent bytes that decide whose connection is closed when the server has too many: those of the peer, or of the
    /// connection of a proxy.
    pub(super) fn weight(&self) -> (usize, usize) {
        let unsent = self.unsent();
        let is_proxy = self.0.max_unsent == usize::MAX;
        (if is_proxy { unsent } else { self.0.peer.unsent.load(ORDER) }, unsent)
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn close(&self) {
        self.0.closing.cancel();
    }

    pub(super) fn cancel(&self) {
        self.release_all();
        self.0.evicted.cancel();
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.0.evicted.is_cancelled()
    }

    fn release(&self, bytes: usize) {
        take(&self.0.peer.unsent, bytes);
        self.0.connections.0.server.unsent.dec_by(signed(bytes));
    }
}

/// A request in progress.
#[derive(Debug)]
pub struct Request {
    usage: Usage,
    id: u64,
    waiting_since: Arc<AtomicU64>,
}

impl Request {
    /// The connection's usage.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// There is data for the transport, or the transport has taken a piece and may not be able to send it.
    pub(super) fn starts_waiting(&self) {
        self.waiting_since.store(now(), ORDER);
    }

    /// The transport has sent every piece so far, and there is no more yet.
    pub(super) fn ends_waiting(&self) {
        self.waiting_since.store(NEVER, ORDER);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let Self { usage, id, .. } = self;
        usage.lock_requests().waiting_since.remove(id);
        usage.0.last_request_at.store(now(), ORDER);
        // In one order with the count of those that wait, so that either sees the other.
        if usage.0.requests.fetch_sub(1, Ordering::SeqCst) == 1 {
            usage.0.connections.became_idle();
        }
    }
}

/// Subtracts up to `bytes`; returns how many.
pub(super) fn take(counter: &AtomicUsize, bytes: usize) -> usize {
    let before = counter.fetch_update(ORDER, ORDER, |value| Some(value.saturating_sub(bytes))).unwrap_or_default();
    before.min(bytes)
}

/// Monotonic time in milliseconds, for atomics.
fn now() -> u64 {
    u64::try_from(Clock::system().monotonic().as_millis()).unwrap_or(u64::MAX)
}

fn since(time: &AtomicU64) -> Duration {
    Duration::from_millis(now().saturating_sub(time.load(ORDER)))
}
