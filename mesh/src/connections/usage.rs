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
use tracing::debug;

use super::{
    Connections, ORDER,
    peer::PeerUsage,
    proxied::ProxiedClient,
    request::{Progress, Request},
};
use crate::{clock::Clock, limit::Key};

/// A response up to this size is never refused, so that an error can always be sent. It is counted all the same.
const MAX_SMALL: usize = 4 << 10;

/// After how many resets of streams a connection is replaced: HTTP/2 may keep what it has of each, and the peer may keep the window.
const MAX_RESETS: usize = 16;

/// A response that has waited so long while another one is reset may wait for the same: for the window of the connection, which the peer
/// shares among all its responses. New requests then get a new connection.
const SHARED_WAIT: Duration = Duration::from_secs(1);

/// The usage of one connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Usage(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    key: Key,
    sharing: Sharing,
    max_unsent: usize,
    max_unsent_of_peer: usize,
    pub(super) max_request_bytes_of_peer: usize,
    pub(super) peer: Arc<PeerUsage>,
    pub(super) connections: Connections,
    /// The number of requests whose response has not ended.
    pub(super) requests: AtomicUsize,
    /// Those requests.
    progress: Mutex<Requests>,
    /// The number of streams that have been reset.
    resets: AtomicUsize,
    /// When the connection was to be replaced; [`NEVER`] if it is not.
    retired_at: AtomicU64,
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

/// The requests of one connection.
#[derive(Debug, Default)]
struct Requests {
    last_id: u64,
    by_id: HashMap<u64, Arc<Progress>>,
    /// The last one that was started, until its stream is spawned.
    started: Option<Arc<Progress>>,
}

/// Who shares a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Nobody: it is one client's.
    Alone,
    /// Those for whom a workload calls. It knows them, this server does not.
    Users,
    /// The clients of a proxy, which states them.
    Clients,
}

/// No time.
pub(super) const NEVER: u64 = u64::MAX;

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
    pub(super) fn new(
        key: Key,
        sharing: Sharing,
        budget: Budget,
        peer: Arc<PeerUsage>,
        connections: Connections,
    ) -> Self {
        let now = now();
        Self(Arc::new(Inner {
            key,
            sharing,
            max_unsent: budget.unsent,
            max_unsent_of_peer: budget.unsent_of_peer,
            max_request_bytes_of_peer: budget.request_bytes_of_peer,
            peer,
            connections,
            requests: AtomicUsize::new(0),
            progress: Mutex::default(),
            resets: AtomicUsize::new(0),
            retired_at: AtomicU64::new(NEVER),
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
        let progress = Arc::<Progress>::default();
        let mut requests = self.lock_requests();
        requests.last_id += 1;
        let id = requests.last_id;
        requests.by_id.insert(id, progress.clone());
        requests.started = Some(progress.clone());
        drop(requests);
        Request::new(self.clone(), id, progress)
    }

    pub(super) fn end_request(&self, id: u64) {
        self.lock_requests().by_id.remove(&id);
        self.0.last_request_at.store(now(), ORDER);
        // In one order with the count of those that wait, so that either sees the other.
        if self.0.requests.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.connections.became_idle();
        }
    }

    /// The request that was started last, once.
    pub(super) fn take_started_request(&self) -> Option<Arc<Progress>> {
        self.lock_requests().started.take()
    }

    pub(super) fn is_shared(&self) -> bool {
        self.0.sharing != Sharing::Alone
    }

    pub(super) fn is_of_proxy(&self) -> bool {
        self.0.sharing == Sharing::Clients
    }

    /// One request of a client behind the proxy.
    pub(super) fn proxied_client(&self, key: Key) -> ProxiedClient {
        ProxiedClient::new(self.0.connections.clone(), key)
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

    pub(super) fn is_nearly_full(&self) -> bool {
        self.unsent() >= self.0.max_unsent / 4 * 3
    }

    /// The same of a client that this proxy states.
    pub(super) fn is_nearly_full_for(&self, client: &PeerUsage) -> bool {
        client.unsent.load(ORDER) >= self.0.connections.0.limits.max_unsent_per_peer / 4 * 3
    }

    /// Counts the bytes of the response to a request.
    pub(super) fn hold(&self, bytes: usize, request: &Arc<Progress>) -> Result<(), OverBudget> {
        let Inner { max_unsent, max_unsent_of_peer, peer, connections, .. } = &*self.0;
        if exceeds(self.unsent(), bytes, *max_unsent) || exceeds(peer.unsent.load(ORDER), bytes, *max_unsent_of_peer) {
            return Err(OverBudget);
        }
        self.0.held.fetch_add(bytes, ORDER);
        peer.unsent.fetch_add(bytes, ORDER);
        if connections.0.server.add(bytes) && !connections.evict_largest(self, bytes, request) && bytes > MAX_SMALL {
            self.discard(bytes);
            return Err(OverBudget);
        }
        Ok(())
    }

    /// Whether a response does not fit in the budget of a client that this proxy states.
    pub(super) fn exceeds_that_of_peer(&self, client: &PeerUsage, bytes: usize) -> bool {
        exceeds(client.unsent.load(ORDER), bytes, self.0.connections.0.limits.max_unsent_per_peer)
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

    /// Whether the socket may be read: that of a client may not be while its peer has sent too much. What many share is read as it comes.
    pub(super) fn may_be_read(&self) -> bool {
        self.is_shared() || self.0.peer.pace.allows_more()
    }

    /// Bytes were read from the socket.
    pub(super) fn was_read(&self, bytes: usize) {
        if !self.is_shared() {
            self.0.peer.pace.was_read(bytes);
        }
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

    /// Whose connection it is.
    pub(crate) fn peer_key(&self) -> Key {
        self.0.key
    }

    /// How long the connection has had no request; `None` if it has one.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let is_idle = self.0.requests.load(Ordering::SeqCst) == 0;
        is_idle.then(|| elapsed_since(self.0.last_request_at.load(ORDER)).unwrap_or_default())
    }

    /// How long the socket has taken nothing; `None` if it does.
    pub(super) fn blocked_for(&self) -> Option<Duration> {
        elapsed_since(self.0.blocked_since.load(ORDER))
    }

    /// Looks for responses that are ready and of which the peer has taken nothing for this time. What else it reads, such as the
    /// answers to its pings, is no progress. On a shared connection their streams are reset, and this returns false; otherwise it
    /// returns whether there are any.
    pub(super) fn reset_stalled(&self, timeout: Duration) -> bool {
        let requests = self.lock_requests();
        let stalled = requests.by_id.values().filter(|request| {
            !request.is_reset() && elapsed_since(request.waiting_since()).is_some_and(|time| time >= timeout)
        });
        let mut must_close = false;
        let mut has_reset = false;
        for request in stalled {
            has_reset |= self.try_reset(request, "the peer took nothing of it within the send timeout");
            must_close |= !request.is_reset();
        }
        let waits = |request: &Progress| elapsed_since(request.waiting_since()).is_some_and(|time| time >= SHARED_WAIT);
        if has_reset && requests.by_id.values().any(|request| !request.is_reset() && waits(request)) {
            self.retire();
        }
        must_close
    }

    /// Resets the largest response of this shared connection, of the client with the most if it states any. `None` if it has no
    /// stream, and false if none is larger than `own`, which has so many bytes and is on it too.
    pub(super) fn reset_largest(&self, own: Option<(&Arc<Progress>, usize)>) -> Option<bool> {
        let requests = self.lock_requests();
        if !self.is_shared() || !requests.by_id.values().any(|request| request.has_stream()) {
            return None;
        }
        let is_own = |request: &Arc<Progress>| own.is_some_and(|(own, _)| Arc::ptr_eq(request, own));
        let others = requests.by_id.values().filter(|request| request.can_be_reset() && !is_own(request));
        let client_of = |request: &Progress| request.client().map(|(client, unsent)| (unsent, client));
        let largest = others.max_by_key(|request| (client_of(request), request.unsent()));
        let Some(largest) = largest.filter(|request| request.unsent() > 0) else { return Some(false) };
        if let Some((own, bytes)) = own
            && client_of(own) == client_of(largest)
            && bytes >= largest.unsent()
        {
            return Some(false);
        }
        Some(self.try_reset(largest, "the server has too many unsent bytes, and this peer most of them"))
    }

    fn try_reset(&self, request: &Progress, cause: &'static str) -> bool {
        if !self.is_shared() || !request.can_be_reset() {
            return false;
        }
        debug!(peer = %self.0.key, unsent = request.unsent(), cause, "response reset");
        request.reset(self);
        if self.0.resets.fetch_add(1, ORDER) + 1 == MAX_RESETS {
            self.retire();
        }
        true
    }

    /// Takes no new requests: the peer opens another connection.
    fn retire(&self) {
        let _ = self.0.retired_at.compare_exchange(NEVER, now(), ORDER, ORDER);
        self.close();
    }

    /// For how long it has taken no new requests since streams were reset; `None` if it takes some.
    pub(super) fn retired_for(&self) -> Option<Duration> {
        elapsed_since(self.0.retired_at.load(ORDER))
    }

    /// The unsent bytes that decide whose connection is closed when the server has too many: those of the peer, or of the
    /// connection of a proxy.
    pub(super) fn weight(&self) -> (usize, usize) {
        let unsent = self.unsent();
        (if self.is_of_proxy() { unsent } else { self.0.peer.unsent.load(ORDER) }, unsent)
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn close(&self) {
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

/// Whether bytes do not fit in a budget. A response may exceed one that nothing else uses.
fn exceeds(used: usize, bytes: usize, max: usize) -> bool {
    bytes > MAX_SMALL && used > 0 && used.saturating_add(bytes) > max
}

/// Subtracts up to `bytes`; returns how many.
pub(super) fn take(counter: &AtomicUsize, bytes: usize) -> usize {
    let before = counter.fetch_update(ORDER, ORDER, |value| Some(value.saturating_sub(bytes))).unwrap_or_default();
    before.min(bytes)
}

/// Monotonic time in milliseconds, for atomics.
pub(super) fn now() -> u64 {
    u64::try_from(Clock::system().monotonic().as_millis()).unwrap_or(u64::MAX)
}

/// The time since then; `None` for [`NEVER`].
fn elapsed_since(time: u64) -> Option<Duration> {
    (time != NEVER).then(|| Duration::from_millis(now().saturating_sub(time)))
}
