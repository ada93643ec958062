//! Signing keys that were withdrawn before their time, since they are compromised.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

/// How many withdrawn keys a process knows at most. Of more, it forgets the first ones: they left the key set long ago, and so verify
/// nothing.
const MAX_KEYS: usize = 1000;

/// The withdrawn keys known to this process, by their ids. Clones share them. They are not forgotten while the process runs, except as
/// by a limit of 1,000.
///
/// Without any, a check costs one atomic load.
#[derive(Clone)]
pub struct WithdrawnKeys(Arc<Inner>);

struct Inner {
    len: AtomicUsize,
    /// With the number of each among all that were withdrawn.
    keys: RwLock<HashMap<Box<str>, u64>>,
    /// The number of keys ever withdrawn.
    count: watch::Sender<u64>,
}

impl WithdrawnKeys {
    /// Withdraws a key. When this returns, none of its tokens is accepted here. Returns whether that is new.
    pub(super) fn insert(&self, key_id: &str) -> bool {
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.contains_key(key_id) {
            return false;
        }
        let number = *self.0.count.borrow();
        if keys.len() >= MAX_KEYS {
            let first = keys.iter().min_by_key(|(_, number)| **number).map(|(key_id, _)| key_id.clone());
            first.and_then(|first| keys.remove(&first));
        }
        keys.insert(key_id.into(), number);
        self.0.len.store(keys.len(), Ordering::Release);
        tracing::info!(key_id, "a signing key was withdrawn, its tokens are refused");
        self.0.count.send_modify(|count| *count += 1);
        true
    }

    /// Whether this key was withdrawn.
    #[must_use]
    pub fn contains(&self, key_id: &str) -> bool {
        self.0.len.load(Ordering::Acquire) > 0
            && self.0.keys.read().unwrap_or_else(PoisonError::into_inner).contains_key(key_id)
    }

    /// How many withdrawn keys are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len.load(Ordering::Acquire)
    }

    /// Whether no key was withdrawn.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of keys ever withdrawn, which changes when one is.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.count.subscribe()
    }

    /// The number of keys ever withdrawn.
    pub(super) fn count(&self) -> u64 {
        *self.0.count.borrow()
    }
}

impl Default for WithdrawnKeys {
    fn default() -> Self {
        let (len, keys) = (AtomicUsize::new(0), RwLock::default());
        Self(Arc::new(Inner { len, keys, count: watch::Sender::new(0) }))
    }
}

impl fmt::Debug for WithdrawnKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithdrawnKeys").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn withdrawn_keys_are_known_once_each() {
        let keys = WithdrawnKeys::default();
        let mut watched = keys.watch();
        assert!(!keys.contains("a") && keys.is_empty());
        assert!(keys.insert("a"));
        assert!(!keys.insert("a"));
        assert!(keys.contains("a") && !keys.contains("b"));
        assert_eq!((keys.len(), keys.count()), (1, 1));
        assert!(watched.has_changed().unwrap());
        assert_eq!(*watched.borrow_and_update(), 1);
    }

    #[test]
    fn of_too_many_withdrawn_keys_the_first_ones_are_forgotten() {
        let keys = WithdrawnKeys::default();
        for number in 0..MAX_KEYS + 2 {
            keys.insert(&number.to_string());
        }
        assert_eq!(keys.len(), MAX_KEYS);
        assert!(!keys.contains("0") && !keys.contains("1") && keys.contains("2") && keys.contains("1001"));
    }
}
