//! A cache of verified tokens, keyed by their hash.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::sync::Cache;

use super::{Principal, claims::has_expired};
use crate::clock::Timestamp;

/// How often expired tokens are removed, in seconds, while new ones are verified.
const SWEEP_INTERVAL: i64 = 60;

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

/// A cache of bounded size that evicts the least used tokens, and while tokens are added those that have expired.
pub(super) struct TokenCache {
    tokens: Cache<Fingerprint, CachedToken>,
    /// When expired tokens were removed, in seconds since 1970.
    swept_at: AtomicI64,
}

impl TokenCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { tokens: Cache::new(capacity), swept_at: AtomicI64::new(0) }
    }

    pub(super) fn get(&self, fingerprint: &Fingerprint) -> Option<CachedToken> {
        self.tokens.get(fingerprint)
    }

    pub(super) fn insert(&self, fingerprint: Fingerprint, token: CachedToken, now: Timestamp) {
        self.tokens.insert(fingerprint, token);
        let (seconds, swept_at) = (now.timestamp(), self.swept_at.load(Ordering::Relaxed));
        // One caller of those that find it due. A clock that was set back does not put it off.
        if (seconds - swept_at).abs() >= SWEEP_INTERVAL
            && self.swept_at.compare_exchange(swept_at, seconds, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.tokens.retain(|_, token| !has_expired(token.principal.expires_at, now));
        }
    }

    pub(super) fn remove(&self, fingerprint: &Fingerprint) {
        self.tokens.remove(fingerprint);
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::{clock::Clock, token::testing::principal};

    #[test]
    fn a_simulated_day_of_tokens_leaves_those_that_are_alive() {
        const DAY: i64 = 24 * 60 * 60;
        let (cache, start) = (TokenCache::new(10_000), Clock::system().now());
        // A token every five seconds for each of three users, which nobody presents again.
        for number in 0..DAY / 5 {
            let now = start + TimeDelta::seconds(5 * number);
            let principal = Arc::new(Principal { expires_at: now + TimeDelta::minutes(5), ..principal(now) });
            for user in 0..3 {
                let token = CachedToken { principal: Arc::clone(&principal), withdrawals: 0 };
                cache.insert(Fingerprint::of(&format!("{user} {number}")), token, now);
            }
        }
        // Of the last five minutes, the leeway and the interval.
        let alive = 3 * (5 * 60 + 5 + SWEEP_INTERVAL) / 5;
        let left = i64::try_from(cache.tokens.len()).unwrap();
        assert!(left <= alive + 3, "{left}, of which {alive} may be");
        assert!(left >= 3 * 5 * 60 / 5, "{left}: none was removed that is alive");
    }

    #[test]
    fn many_tokens_at_once_stay_within_the_capacity() {
        let (cache, now) = (TokenCache::new(1000), Clock::system().now());
        let principal = Arc::new(principal(now));
        for number in 0..50_000 {
            let token = CachedToken { principal: Arc::clone(&principal), withdrawals: 0 };
            cache.insert(Fingerprint::of(&number.to_string()), token, now);
        }
        assert!(cache.tokens.len() <= 1000, "{}", cache.tokens.len());
    }
}
