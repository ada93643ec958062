//! The clients behind proxies: each has the budget of a peer, through however many connections its requests come.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Connections, peer::PeerUsage};
use crate::limit::Key;

/// The clients that have requests in progress.
#[derive(Debug, Default)]
pub(super) struct ProxiedClients(Mutex<HashMap<Key, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    requests: usize,
    usage: Arc<PeerUsage>,
}

/// One request of a client behind a proxy.
#[derive(Debug)]
pub(super) struct ProxiedClient {
    connections: Connections,
    key: Key,
    usage: Arc<PeerUsage>,
}

impl ProxiedClients {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }
}

impl ProxiedClient {
    pub(super) fn new(connections: Connections, key: Key) -> Self {
        let mut clients = connections.0.clients.lock();
        let entry = clients.entry(key).or_default();
        entry.requests += 1;
        let usage = entry.usage.clone();
        drop(clients);
        Self { connections, key, usage }
    }

    pub(super) fn usage(&self) -> &Arc<PeerUsage> {
        &self.usage
    }
}

impl Drop for ProxiedClient {
    fn drop(&mut self) {
        let mut clients = self.connections.0.clients.lock();
        if let Some(entry) = clients.get_mut(&self.key) {
            entry.requests -= 1;
            if entry.requests == 0 {
                clients.remove(&self.key);
            }
        }
    }
}
