//! The keys that tokens are checked with now, swapped as a whole.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::PublicKey;

/// The keys that tokens are checked with now. Clones are the same set.
#[derive(Clone, Default)]
pub struct KeySet(Arc<Inner>);

#[derive(Default)]
struct Inner {
    keys: ArcSwap<HashMap<String, Arc<PublicKey>>>,
    /// Counts how often a key was withdrawn. What was verified under an older count is verified anew.
    withdrawals: AtomicU64,
    arrived: Notify,
    wanted: Notify,
}

impl KeySet {
    /// A set without keys: nothing can be verified until [`KeySet::replace`] brings some.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts these keys in the place of those before. Of two keys with one name the first counts.
    pub fn replace(&self, keys: Vec<PublicKey>) {
        let mut next = HashMap::with_capacity(keys.len());
        for key in keys {
            next.entry(key.kid().to_owned()).or_insert_with(|| Arc::new(key));
        }
        let next = Arc::new(next);
        let previous = self.0.keys.swap(Arc::clone(&next));
        // After the swap: who reads the new count can no longer read the old keys.
        if previous.iter().any(|(kid, key)| next.get(kid) != Some(key)) {
            self.0.withdrawals.fetch_add(1, Ordering::AcqRel);
        }
        self.0.arrived.notify_waiters();
    }

    /// The key of this name.
    #[must_use]
    pub fn get(&self, kid: &str) -> Option<Arc<PublicKey>> {
        self.0.keys.load().get(kid).cloned()
    }

    /// Whether there is any key, which there is from the first fetch on.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        !self.0.keys.load().is_empty()
    }

    /// Waits until there are keys.
    pub async fn loaded(&self) {
        loop {
            let arrived = self.0.arrived.notified();
            if self.is_loaded() {
                return;
            }
            arrived.await;
        }
    }

    /// How many times a key was withdrawn.
    pub(super) fn withdrawals(&self) -> u64 {
        self.0.withdrawals.load(Ordering::Acquire)
    }

    /// Says that a token named a key that is not here. The watcher may fetch the set sooner for it.
    pub(super) fn want(&self) {
        self.0.wanted.notify_one();
    }

    /// Waits until some token named a key that is not here.
    pub(super) async fn wanted(&self) {
        self.0.wanted.notified().await;
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys.load().values()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::testing::Signer;

    #[test]
    fn only_a_withdrawn_or_exchanged_key_counts_as_a_withdrawal() {
        let (first, second) = (Signer::new("1"), Signer::new("2"));
        let keys = KeySet::new();
        assert!(!keys.is_loaded());
        keys.replace(vec![first.public()]);
        keys.replace(vec![first.public()]);
        keys.replace(vec![second.public(), first.public()]);
        assert_eq!(keys.withdrawals(), 0);
        keys.replace(vec![second.public()]);
        assert_eq!(keys.withdrawals(), 1);
        keys.replace(vec![Signer::new("2").public()]);
        assert_eq!(keys.withdrawals(), 2);
        assert!(keys.get("1").is_none() && keys.get("2").is_some());
    }

    #[test]
    fn of_two_keys_with_one_name_the_first_counts() {
        let (first, second) = (Signer::new("1"), Signer::new("1"));
        let keys = KeySet::new();
        keys.replace(vec![first.public(), second.public()]);
        assert_eq!(keys.get("1").as_deref(), Some(&first.public()));
    }

    #[tokio::test]
    async fn who_waits_for_keys_is_told_when_they_come() {
        let keys = KeySet::new();
        let waiting = tokio::spawn({
            let keys = keys.clone();
            async move { keys.loaded().await }
        });
        keys.replace(vec![]);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        keys.replace(vec![Signer::new("1").public()]);
        waiting.await.unwrap();
        keys.loaded().await;
    }
}
