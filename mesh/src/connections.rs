//! The open connections of a server: how many each peer has, how long they are idle, and what they have not sent yet.
//!
//! A peer controls how many connections it opens, and how fast it reads. So both are bounded, for each peer and in total:
//!
//! - A server that is full closes the connection that has been idle longest, before it refuses a new one. Of all peers, the
//!   one with the most connections loses first ([`Connections::register`]).
//! - A connection without a request is closed gracefully after an idle timeout, and one that takes nothing of a response that
//!   is ready for it after a send timeout ([`Connections::sweep`]). Of a connection that a workload or a proxy shares among many
//!   users, the stream of that response is reset alone ([`StreamExecutor`]), and the connection is replaced if others wait as well.
//! - Bytes of responses count from when the response exists until the socket has taken them ([`MeteredBody`],
//!   [`MeteredIo`]). A response that exceeds the budget of its connection or peer is replaced; if all of them together exceed
//!   the server's, the largest connection of the peer with the most of them is closed, or the largest stream of one that is shared. Not counted are, for each stream, a last
//!   piece of at most 16 KiB that the transport has taken.
//! - Bytes of requests in progress count, heads included ([`RequestBytes`]). One that exceeds the budget of its peer or the server is
//!   refused, unless it is small and alone on its connection.
//! - A client behind a trusted proxy has the budgets of a peer ([`Request::of_client`]).

mod body;
mod io;
mod peer;
mod proxied;
mod request;
mod request_bytes;
mod usage;

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper_util::server::graceful::GracefulConnection;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::Notify;
use tracing::debug;

pub use self::{
    body::MeteredBody,
    io::MeteredIo,
    request::{Request, StreamExecutor},
    request_bytes::{RequestBytes, TooManyRequestBytes},
    usage::Usage,
};
use self::{
    peer::PeerUsage,
    proxied::ProxiedClients,
    request::Progress,
    usage::{Budget, ServerUsage, Sharing},
};
use crate::{limit::Key, telemetry::Metrics};

/// How often idle and stalled connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// How long a graceful close may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the requests of a connection that is replaced may take: longer than a unary call. Who watches something begins again.
const RETIRED_TIMEOUT: Duration = Duration::from_secs(65);

/// The limits of a server's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open connections.
    pub max_connections: usize,
    /// Open connections of one peer.
    pub max_per_peer: usize,
    /// How long a connection stays open without a request; `None` for a server whose peers keep connections.
    pub idle_timeout: Option<Duration>,
    /// How long a connection with unsent bytes stays open while the peer takes none.
    pub send_timeout: Duration,
    /// Unsent bytes of responses of one connection.
    pub max_unsent_per_connection: usize,
    /// Unsent bytes of responses of one peer.
    pub max_unsent_per_peer: usize,
    /// Unsent bytes of responses in total.
    pub max_unsent: usize,
    /// Bytes of requests in progress of one peer.
    pub max_request_bytes_per_peer: usize,
    /// Bytes of requests in progress in total.
    pub max_request_bytes: usize,
}

impl ConnectionLimits {
    /// No limits.
    pub const UNLIMITED: Self = Self {
        max_connections: usize::MAX,
        max_per_peer: usize::MAX,
        idle_timeout: None,
        send_timeout: Duration::MAX,
        max_unsent_per_connection: usize::MAX,
        max_unsent_per_peer: usize::MAX,
        max_unsent: usize::MAX,
        max_request_bytes_per_peer: usize::MAX,
        max_request_bytes: usize::MAX,
    };
}

/// The connections and bytes of the servers of a process.
#[derive(Debug, Clone, Default)]
struct ServerMetrics {
    connections: Family<ServiceLabels, Gauge>,
    unsent: Family<ServiceLabels, Gauge>,
    requests: Family<ServiceLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: &'static str,
}

impl ServerMetrics {
    fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register("drystone_server_connections", "Open connections of callers", this.connections.clone());
        let help = "Bytes of responses that callers have not taken";
        registry.register("drystone_server_unsent_bytes", help, this.unsent.clone());
        let help = "Bytes of requests in progress, as far as they are not decoded";
        registry.register("drystone_server_request_bytes", help, this.requests.clone());
        this
    }
}

/// The open connections of one server. Clones share them.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: ConnectionLimits,
    /// The number of open connections, as a metric.
    open: Gauge,
    server: Arc<ServerUsage>,
    table: Mutex<Table>,
    clients: ProxiedClients,
    /// Notified when a connection ends, and when one becomes idle while somebody waits for that.
    freed: Notify,
    /// How many wait in [`Connections::register`].
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    by_id: HashMap<u64, Usage>,
    peers: HashMap<Key, Peer>,
}

#[derive(Debug)]
struct Peer {
    connections: usize,
    usage: Arc<PeerUsage>,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKind {
    /// One client: the limits of a peer apply.
    Client(Key),
    /// A workload that calls for many users: the limits of a peer apply.
    Workload(Key),
    /// A proxy with many clients behind it: only the limits of the server apply to it, and those of a peer to each client.
    Proxy(Key),
}

/// A registered connection. It is removed when this is dropped.
#[derive(Debug)]
pub struct Connection {
    connections: Connections,
    id: u64,
    usage: Usage,
}

/// The peer has as many connections as it may, none of them idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyConnections;

impl Connections {
    /// No connections yet.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self::counted_by(limits, Gauge::default(), Gauge::default(), Gauge::default())
    }

    /// No connections yet of this service, whose bytes are metrics.
    #[must_use]
    pub fn of_service(limits: ConnectionLimits, metrics: &Metrics, service: &'static str) -> Self {
        let labels = ServiceLabels { service };
        let ServerMetrics { connections, unsent, requests } = metrics.shared(ServerMetrics::register);
        let (unsent, requests) = (unsent.get_or_create_owned(&labels), requests.get_or_create_owned(&labels));
        Self::counted_by(limits, connections.get_or_create_owned(&labels), unsent, requests)
    }

    fn counted_by(limits: ConnectionLimits, open: Gauge, unsent: Gauge, request_bytes: Gauge) -> Self {
        let server = Arc::new(ServerUsage::new(limits.max_unsent, unsent, request_bytes));
        Self(Arc::new(Inner {
            limits,
            open,
            server,
            table: Mutex::default(),
            clients: ProxiedClients::default(),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
        }))
    }

    /// Registers a connection. While the server is full of connections that are not idle, this waits, and further
    /// connections wait in the kernel's queue.
    ///
    /// # Errors
    /// [`TooManyConnections`] of this peer: the connection should be closed.
    pub async fn register(&self, peer: PeerKind) -> Result<Connection, TooManyConnections> {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            // Enabled before the attempt, so that no notification is missed.
            freed.as_mut().enable();
            let _waiting = Waiting::start(&self.0.waiting);
            if let Some(registered) = self.try_register(peer) {
                return registered;
            }
            freed.await;
        }
    }

    /// Registers a connection; `None` if the server is full.
    pub fn try_register(&self, peer: PeerKind) -> Option<Result<Connection, TooManyConnections>> {
        let limits = &self.0.limits;
        let mut table = self.lock();
        let key = peer.key();
        if let PeerKind::Client(key) | PeerKind::Workload(key) = peer
            && table.connections_of(key) >= limits.max_per_peer
            && !table.evict_idlest(|usage| usage.peer_key() == key, "the peer has too many connections")
        {
            return Some(Err(TooManyConnections));
        }
        if table.by_id.len() >= limits.max_connections {
            let fullest = table.peer_with_most_idle_connections();
            if !table.evict_idlest(|usage| Some(usage.peer_key()) == fullest, "the server has too many connections") {
                return None;
            }
        }
        let budget = match peer {
            PeerKind::Client(_) | PeerKind::Workload(_) => Budget {
                unsent: limits.max_unsent_per_connection,
                unsent_of_peer: limits.max_unsent_per_peer,
                request_bytes_of_peer: limits.max_request_bytes_per_peer,
            },
            PeerKind::Proxy(_) => Budget::UNLIMITED,
        };
        let entry = table.peers.entry(key).or_insert_with(|| Peer { connections: 0, usage: Arc::default() });
        entry.connections += 1;
        let usage = Usage::new(key, peer.sharing(), budget, entry.usage.clone(), self.clone());
        table.last_id += 1;
        let id = table.last_id;
        table.by_id.insert(id, usage.clone());
        self.0.open.inc();
        Some(Ok(Connection { connections: self.clone(), id, usage }))
    }

    /// Closes every connection gracefully, and waits until all have ended.
    pub async fn close(&self) {
        for usage in self.lock().by_id.values() {
            usage.close();
        }
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            freed.await;
        }
    }

    /// Closes every connection at once.
    pub fn evict_all(&self) {
        for usage in self.lock().by_id.values() {
            usage.evict("the server stops");
        }
    }

    /// The number of open connections.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().by_id.len()
    }

    /// The unsent bytes of all responses, as a metric.
    #[must_use]
    pub fn unsent(&self) -> Gauge {
        self.0.server.unsent.clone()
    }

    /// The bytes of all requests in progress, as a metric.
    #[must_use]
    pub fn request_bytes(&self) -> Gauge {
        self.0.server.request_bytes.clone()
    }

    /// Closes idle and stalled connections, until this is dropped.
    pub async fn sweep(&self) {
        let period = self.0.limits.idle_timeout.map_or(SWEEP_INTERVAL, |timeout| SWEEP_INTERVAL.min(timeout / 4));
        let mut interval = tokio::time::interval(period.max(Duration::from_millis(10)));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.sweep_once();
        }
    }

    fn sweep_once(&self) {
        let ConnectionLimits { idle_timeout, send_timeout, .. } = self.0.limits;
        let table = self.lock();
        for usage in table.by_id.values() {
            if usage.blocked_for().is_some_and(|time| time >= send_timeout) || usage.reset_stalled(send_timeout) {
                usage.evict("it took no byte of its responses within the send timeout");
            } else if let Some(retired) = usage.retired_for()
                && (retired >= RETIRED_TIMEOUT || usage.idle_for().is_some_and(|idle| idle >= CLOSE_TIMEOUT))
            {
                usage.evict("it was to be replaced");
            } else if let Some(idle_timeout) = idle_timeout
                && let Some(idle) = usage.idle_for()
                && idle >= idle_timeout
            {
                if idle >= idle_timeout + CLOSE_TIMEOUT {
                    usage.evict("it did not close after the idle timeout");
                } else {
                    usage.close();
                }
            }
        }
    }

    /// Closes the largest connection of the peer with the most unsent bytes, or resets the largest stream of one that is shared, for a
    /// response of so many bytes to `request` on the connection `own`. Returns false if that response itself is the largest.
    fn evict_largest(&self, own: &Usage, bytes: usize, request: &Arc<Progress>) -> bool {
        let table = self.lock();
        let open = table.by_id.values().filter(|usage| !usage.is_evicted());
        let Some(largest) = open.max_by_key(|usage| usage.weight()) else { return false };
        let is_own = largest.is(own);
        if let Some(is_reset) = largest.reset_largest(is_own.then_some((request, bytes))) {
            return is_reset;
        }
        if is_own {
            return false;
        }
        largest.evict("the server has too many unsent bytes, and this peer most of them");
        true
    }

    /// A connection has become idle.
    fn became_idle(&self) {
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.0.freed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one that waits, until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn start(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Table {
    fn connections_of(&self, key: Key) -> usize {
        self.peers.get(&key).map_or(0, |peer| peer.connections)
    }

    /// Evicts the connection that has been idle longest. It is removed from the table at once. Returns whether there was one.
    fn evict_idlest(&mut self, filter: impl Fn(&Usage) -> bool, cause: &'static str) -> bool {
        let idle = self.by_id.iter().filter(|(_, usage)| filter(usage));
        let idlest = idle.filter_map(|(id, usage)| Some((*id, usage.idle_for()?))).max_by_key(|(_, idle)| *idle);
        let Some((id, _)) = idlest else { return false };
        if let Some(usage) = self.remove(id) {
            usage.evict(cause);
        }
        true
    }

    fn peer_with_most_idle_connections(&self) -> Option<Key> {
        let mut idle = HashMap::<Key, usize>::new();
        for usage in self.by_id.values().filter(|usage| usage.idle_for().is_some()) {
            *idle.entry(usage.peer_key()).or_default() += 1;
        }
        idle.into_iter().max_by_key(|(_, count)| *count).map(|(key, _)| key)
    }

    fn remove(&mut self, id: u64) -> Option<Usage> {
        let usage = self.by_id.remove(&id)?;
        if let Some(peer) = self.peers.get_mut(&usage.peer_key()) {
            peer.connections -= 1;
            // Bytes that are still counted keep the peer's usage alive on their own.
            if peer.connections == 0 {
                self.peers.remove(&usage.peer_key());
            }
        }
        Some(usage)
    }
}

impl PeerKind {
    fn key(self) -> Key {
        match self {
            Self::Client(key) | Self::Workload(key) | Self::Proxy(key) => key,
        }
    }

    fn sharing(self) -> Sharing {
        match self {
            Self::Client(_) => Sharing::Alone,
            Self::Workload(_) => Sharing::Users,
            Self::Proxy(_) => Sharing::Clients,
        }
    }
}

impl Connection {
    /// What the connection uses.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Serves HTTP until the connection ends. It is closed gracefully when it is idle or the server stops, and dropped when it
    /// is evicted.
    ///
    /// # Errors
    /// That of HTTP.
    pub async fn serve<C: GracefulConnection>(&self, http: C) -> Result<(), C::Error> {
        let mut http = pin!(http);
        let mut is_closing = false;
        loop {
            tokio::select! {
                end = http.as_mut() => return end,
                () = self.usage.closing(), if !is_closing => {
                    is_closing = true;
                    http.as_mut().graceful_shutdown();
                }
                () = self.usage.evicted() => return Ok(()),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.lock().remove(self.id);
        self.connections.0.open.dec();
        self.usage.release_all();
        self.connections.0.freed.notify_waiters();
    }
}

impl Usage {
    fn evict(&self, cause: &'static str) {
        if !self.is_evicted() {
            debug!(peer = %self.peer_key(), unsent = self.unsent(), cause, "connection evicted");
        }
        self.cancel();
    }
}

const ORDER: Ordering = Ordering::Relaxed;

#[cfg(test)]
mod tests;
