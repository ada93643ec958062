//! A cache of verified tokens, keyed by their hash.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::sync::Cache;

use super::Principal;

/// The SHA-256 of a token. The token itself is not kept, so a memory leak does not disclose it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

/// Hashes only eight bytes: those of a SHA-256 are uniformly distributed.
impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.first_chunk().map_or(0, |eight| u64::from_ne_bytes(*eight)));
    }
}

/// A verified token.
#[derive(Clone)]
pub(super) struct CachedToken {
    pub(super) principal: Arc<Principal>,
    /// [`super::KeySet::withdrawals`] when the key was looked up.
    pub(super) withdrawals: u64,
}

/// A cache of bounded size that evicts the least used tokens.
pub(super) struct TokenCache(Cache<Fingerprint, CachedToken>);

impl TokenCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Cache::new(capacity))
    }

    pub(super) fn get(&self, fingerprint: &Fingerprint) -> Option<CachedToken> {
        self.0.get(fingerprint)
    }

    pub(super) fn insert(&self, fingerprint: Fingerprint, token: CachedToken) {
        self.0.insert(fingerprint, token);
    }

    pub(super) fn remove(&self, fingerprint: &Fingerprint) {
        self.0.remove(fingerprint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Clock, token::testing::principal};

    #[test]
    fn a_simulated_day_of_tokens_stays_within_the_capacity() {
        const CAPACITY: usize = 1000;
        let cache = TokenCache::new(CAPACITY);
        let principal = Arc::new(principal(Clock::system().now()));
        // A token every five seconds for each of three users, none of which is removed.
        for number in 0..24 * 60 * 60 / 5 * 3 {
            let token = CachedToken { principal: Arc::clone(&principal), withdrawals: 0 };
            cache.insert(Fingerprint::of(&number.to_string()), token);
        }
        assert!(cache.0.len() <= CAPACITY, "{}", cache.0.len());
    }
}
