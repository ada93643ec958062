//! The connections and unfinished handshakes of each peer address, so that one address cannot use up those of a server.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::OwnedSemaphorePermit, task::AbortHandle};

use super::AcceptLimits;
use crate::limit::Key;

/// The connections and unfinished handshakes by address: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Debug)]
pub(super) struct Addresses {
    max_connections: usize,
    max_handshakes: usize,
    open: Arc<OpenConnections>,
    /// Oldest first. Those that have ended are removed when their address connects again, or there are many addresses.
    handshakes: HashMap<Key, VecDeque<Handshake>>,
    /// The number of addresses at which those without unfinished handshakes are removed.
    sweep_at: usize,
}

#[derive(Debug)]
struct Handshake {
    remote: SocketAddr,
    task: AbortHandle,
}

/// The number of open connections by address.
#[derive(Debug, Default)]
struct OpenConnections(Mutex<HashMap<Key, usize>>);

/// One of the connections of an address, and of all. Released when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    open: Arc<OpenConnections>,
    address: Key,
    _of_server: Option<OwnedSemaphorePermit>,
}

impl Addresses {
    pub(super) fn new(limits: &AcceptLimits) -> Self {
        Self {
            max_connections: limits.max_connections_per_address,
            max_handshakes: limits.max_handshakes_per_address.max(1),
            open: Arc::default(),
            handshakes: HashMap::new(),
            sweep_at: limits.max_handshakes.saturating_mul(2),
        }
    }

    /// Counts a connection, together with its permit of the server. `None` if its address has too many.
    pub(super) fn open(&self, remote: SocketAddr, of_server: Option<OwnedSemaphorePermit>) -> Option<ConnectionPermit> {
        let address = Key::client(remote.ip());
        let mut open = self.open.lock();
        let count = open.entry(address).or_default();
        // An entry is never zero, so one that is refused has others.
        if *count >= self.max_connections.max(1) {
            return None;
        }
        *count += 1;
        Some(ConnectionPermit { open: self.open.clone(), address, _of_server: of_server })
    }

    /// Counts a handshake that this task performs. If its address has too many, the oldest one is aborted and returned: a peer that
    /// behaves takes milliseconds, so that the oldest ones are those of one that does not.
    pub(super) fn start_handshake(&mut self, remote: SocketAddr, task: AbortHandle) -> Option<SocketAddr> {
        if self.handshakes.len() >= self.sweep_at {
            self.handshakes.retain(|_, of_address| of_address.iter().any(|handshake| !handshake.task.is_finished()));
        }
        let of_address = self.handshakes.entry(Key::client(remote.ip())).or_default();
        while of_address.front().is_some_and(|oldest| oldest.task.is_finished()) {
            of_address.pop_front();
        }
        if of_address.len() >= self.max_handshakes {
            of_address.retain(|handshake| !handshake.task.is_finished());
        }
        of_address.push_back(Handshake { remote, task });
        if of_address.len() <= self.max_handshakes {
            return None;
        }
        let oldest = of_address.pop_front()?;
        oldest.task.abort();
        Some(oldest.remote)
    }
}

impl OpenConnections {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        let Some(count) = open.get_mut(&self.address) else { return };
        *count -= 1;
        if *count == 0 {
            open.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    fn addresses(max_connections_per_address: usize, max_handshakes_per_address: usize) -> Addresses {
        let limits =
            AcceptLimits { max_handshakes_per_address, max_connections_per_address, ..AcceptLimits::default() };
        Addresses::new(&limits)
    }

    fn remote(host: u8, port: u16) -> SocketAddr {
        ([192, 0, 2, host], port).into()
    }

    #[test]
    fn each_address_has_a_number_of_connections() {
        let addresses = addresses(2, 1);
        let held = [addresses.open(remote(1, 1), None), addresses.open(remote(1, 2), None)];
        assert!(held.iter().all(Option::is_some));
        assert!(addresses.open(remote(1, 3), None).is_none());
        assert!(addresses.open(remote(2, 1), None).is_some(), "another address");
        drop(held);
        assert!(addresses.open(remote(1, 3), None).is_some());
        assert!(addresses.open.lock().is_empty(), "an address without connections is forgotten");
    }

    #[tokio::test]
    async fn the_oldest_handshake_of_an_address_is_aborted_for_a_new_one() {
        let mut addresses = addresses(10, 2);
        let mut tasks = JoinSet::new();
        let mut start = |addresses: &mut Addresses, remote| {
            addresses.start_handshake(remote, tasks.spawn(std::future::pending::<()>()))
        };
        assert_eq!(start(&mut addresses, remote(1, 1)), None);
        assert_eq!(start(&mut addresses, remote(1, 2)), None);
        assert_eq!(start(&mut addresses, remote(2, 1)), None, "another address");
        assert_eq!(start(&mut addresses, remote(1, 3)), Some(remote(1, 1)));
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
        assert_eq!(tasks.len(), 3);
    }

    #[tokio::test]
    async fn a_handshake_that_has_ended_does_not_count() {
        let mut addresses = addresses(10, 1);
        let mut tasks = JoinSet::new();
        for port in 1..5 {
            let ended = tasks.spawn(std::future::ready(()));
            assert_eq!(addresses.start_handshake(remote(1, port), ended), None);
            tasks.join_next().await.unwrap().unwrap();
        }
    }
}
