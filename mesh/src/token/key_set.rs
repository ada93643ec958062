//! The current verification keys, replaced atomically.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::PublicKey;

/// How many tokens of unknown keys an entry point passes on between two fetches: they may be of a new key.
const MAX_UNKNOWN_PASSED_ON: u32 = 100;

/// The current verification keys. Clones share the set.
#[derive(Clone, Default)]
pub struct KeySet(Arc<Inner>);

#[derive(Default)]
struct Inner {
    keys: ArcSwap<HashMap<Arc<str>, Arc<PublicKey>>>,
    /// The number of key withdrawals. Tokens verified at an older count are verified again.
    withdrawals: AtomicU64,
    /// How many of the keys that were withdrawn before their time had been when these keys were fetched.
    withdrawn_before: AtomicU64,
    /// How many tokens of unknown keys were passed on since the last fetch.
    unknown_passed_on: AtomicU32,
    replaced: Notify,
    refresh_requested: Notify,
}

impl KeySet {
    /// An empty set: no token can be verified until [`KeySet::replace`] adds keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the keys. Of several keys with the same `kid` the first is used.
    pub fn replace(&self, keys: Vec<PublicKey>) {
        let mut next = HashMap::with_capacity(keys.len());
        for key in keys {
            next.entry(Arc::clone(key.shared_kid())).or_insert_with(|| Arc::new(key));
        }
        let next = Arc::new(next);
        let previous = self.0.keys.swap(Arc::clone(&next));
        // After the swap: a reader of the new count cannot read the old keys.
        if previous.iter().any(|(kid, key)| next.get(kid) != Some(key)) {
            self.0.withdrawals.fetch_add(1, Ordering::AcqRel);
        }
        self.0.unknown_passed_on.store(0, Ordering::Relaxed);
        self.0.replaced.notify_waiters();
    }

    /// The key with this `kid`.
    #[must_use]
    pub fn get(&self, kid: &str) -> Option<Arc<PublicKey>> {
        self.0.keys.load().get(kid).cloned()
    }

    /// Whether there is any key, as there is from the first fetch on.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        !self.0.keys.load().is_empty()
    }

    /// Waits until there are keys.
    pub async fn loaded(&self) {
        loop {
            let replaced = self.0.replaced.notified();
            if self.is_loaded() {
                return;
            }
            replaced.await;
        }
    }

    /// The number of key withdrawals.
    pub(super) fn withdrawals(&self) -> u64 {
        self.0.withdrawals.load(Ordering::Acquire)
    }

    /// Records that these keys were fetched when so many keys had been withdrawn before their time.
    pub(super) fn set_withdrawn_before(&self, count: u64) {
        self.0.withdrawn_before.store(count, Ordering::Release);
    }

    /// Whether the keys were fetched before one of so many was withdrawn. Its successor may then be unknown here.
    pub(super) fn is_older_than(&self, withdrawn: u64) -> bool {
        self.0.withdrawn_before.load(Ordering::Acquire) < withdrawn
    }

    /// Whether an entry point may pass on one more token of an unknown key, for the services to decide: it may be of a key that is
    /// new, which they learn of at once where one was withdrawn. Bounded, since any client can send such tokens.
    #[must_use]
    pub fn may_pass_on_unknown(&self) -> bool {
        let passed_on = self.0.unknown_passed_on.load(Ordering::Relaxed);
        // Concurrent callers may exceed the limit by one each.
        passed_on < MAX_UNKNOWN_PASSED_ON && self.0.unknown_passed_on.fetch_add(1, Ordering::Relaxed) < u32::MAX
    }

    /// Requests an earlier fetch, since a token has an unknown `kid`.
    pub(super) fn request_refresh(&self) {
        self.0.refresh_requested.notify_one();
    }

    /// Waits for [`KeySet::request_refresh`].
    pub(super) async fn refresh_requested(&self) {
        self.0.refresh_requested.notified().await;
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
    fn only_a_removed_or_replaced_key_counts_as_a_withdrawal() {
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
    fn of_two_keys_with_the_same_kid_the_first_is_used() {
        let (first, second) = (Signer::new("1"), Signer::new("1"));
        let keys = KeySet::new();
        keys.replace(vec![first.public(), second.public()]);
        assert_eq!(keys.get("1").as_deref(), Some(&first.public()));
    }

    #[test]
    fn a_bounded_number_of_tokens_of_unknown_keys_is_passed_on_between_fetches() {
        let keys = KeySet::new();
        for _ in 0..2 {
            let passed_on = (0..1000).filter(|_| keys.may_pass_on_unknown()).count();
            assert_eq!(passed_on, 100);
            keys.replace(vec![Signer::new("1").public()]);
        }
    }

    #[tokio::test]
    async fn loaded_waits_for_the_first_keys() {
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
