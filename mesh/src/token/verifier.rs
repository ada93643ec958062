//! Verifies access tokens.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Claims, KeySet, Principal, PublicKey, RevocationView, TokenError, TokenMetrics, WithdrawnKeys,
    cache::{CachedToken, Fingerprint, TokenCache},
    claims::{Requirements, has_expired, time_to_expiry},
    jwt::{self, JwtSegments},
};
use crate::clock::{Clock, Timestamp};

/// The configuration of a token verifier.
#[derive(Debug, Clone)]
pub struct TokenVerifierConfig {
    /// The required `iss`.
    pub issuer: String,
    /// The required `aud`.
    pub audience: String,
    /// The maximum time from `iat` to `exp`.
    pub max_lifetime: Duration,
    /// The maximum number of cached tokens.
    pub cache_capacity: usize,
}

impl TokenVerifierConfig {
    /// Accepts tokens of this issuer for this audience with a lifetime of at most an hour; caches 10,000.
    #[must_use]
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            max_lifetime: Duration::from_hours(1),
            cache_capacity: 10_000,
        }
    }
}

/// How often the time is compared with the expiry of a token in a call that lasts: the clock may be set.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Verifies access tokens locally. Clones share their cache.
#[derive(Clone)]
pub struct TokenVerifier(Arc<Inner>);

struct Inner {
    config: TokenVerifierConfig,
    max_lifetime: i64,
    keys: KeySet,
    /// `None` at an entry point, which leaves revocation to the services.
    revocations: Option<RevocationView>,
    clock: Clock,
    cache: TokenCache,
    metrics: TokenMetrics,
}

impl TokenVerifier {
    /// Creates a verifier with these keys and revocations, which background tasks keep up to date.
    #[must_use]
    pub fn new(config: TokenVerifierConfig, keys: KeySet, revocations: RevocationView, clock: Clock) -> Self {
        Self::build(config, keys, Some(revocations), clock)
    }

    /// Creates a verifier for an entry point: it checks everything except for revocation, which the services check. It
    /// rejects what no service would accept, before it costs anything else.
    #[must_use]
    pub fn for_entry_point(config: TokenVerifierConfig, keys: KeySet, clock: Clock) -> Self {
        Self::build(config, keys, None, clock)
    }

    fn build(config: TokenVerifierConfig, keys: KeySet, revocations: Option<RevocationView>, clock: Clock) -> Self {
        let max_lifetime = i64::try_from(config.max_lifetime.as_secs()).unwrap_or(i64::MAX);
        let cache = TokenCache::new(config.cache_capacity);
        let metrics = TokenMetrics::default();
        Self(Arc::new(Inner { config, max_lifetime, keys, revocations, clock, cache, metrics }))
    }

    /// Counts with these metrics. To be called before the verifier is cloned.
    #[must_use]
    pub fn with_metrics(mut self, metrics: TokenMetrics) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.metrics = metrics;
        }
        self
    }

    /// Verifies a token and returns its principal. `token` is what follows `Bearer ` in the `authorization` header.
    ///
    /// A cached token costs its SHA-256, one lookup and the revocation check, without allocation.
    ///
    /// # Errors
    /// The first failed check.
    pub fn verify(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        if token.len() > jwt::MAX_LENGTH {
            return Err(TokenError::TooLong);
        }
        let now = self.0.clock.now();
        let fingerprint = Fingerprint::of(token);
        // Read before any key, so that a key withdrawn from here on invalidates the cache entry.
        let withdrawals = self.0.keys.withdrawals();
        let principal = if let Some(principal) = self.cached(&fingerprint, withdrawals, now)? {
            self.0.metrics.cache_hits.inc();
            principal
        } else {
            self.0.metrics.cache_misses.inc();
            // Before the first update of revocations, a revoked token cannot be recognized.
            if self.0.revocations.as_ref().is_some_and(|view| view.last_update().is_none()) {
                return Err(TokenError::NoRevocations);
            }
            self.verify_uncached(token, fingerprint, withdrawals, now)?
        };
        if self.is_revoked(&principal) {
            return Err(TokenError::Revoked);
        }
        Ok(principal)
    }

    fn is_revoked(&self, principal: &Principal) -> bool {
        self.0.revocations.as_ref().is_some_and(|view| view.is_revoked(principal))
    }

    /// Whether every revocation is known, but for those of the last seconds. An entry point leaves revocation to the services.
    #[must_use]
    pub fn has_fresh_revocations(&self) -> bool {
        self.0.revocations.as_ref().is_none_or(RevocationView::is_fresh)
    }

    /// Waits until a verified token is no longer valid, for a call that lasts: it expires or is revoked.
    pub fn invalidation(&self, principal: Arc<Principal>) -> impl Future<Output = TokenError> + Send + 'static {
        let this = self.clone();
        async move {
            let mut changes = this.0.revocations.as_ref().map(RevocationView::changes);
            loop {
                let now = this.0.clock.now();
                if this.is_revoked(&principal) {
                    return TokenError::Revoked;
                }
                if has_expired(principal.expires_at, now) {
                    return TokenError::Expired;
                }
                let left = time_to_expiry(principal.expires_at, now);
                let notified = async {
                    match &mut changes {
                        // The sender is a part of the view, so that this is never an error.
                        Some(changes) => drop(changes.changed().await),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(left.clamp(MIN_PAUSE, MAX_PAUSE)) => {}
                    () = notified => {}
                }
            }
        }
    }

    /// The signing keys that were withdrawn; none at an entry point.
    #[must_use]
    pub fn withdrawn_keys(&self) -> WithdrawnKeys {
        self.0.revocations.as_ref().map(|view| view.withdrawn_keys().clone()).unwrap_or_default()
    }

    /// The verification keys.
    #[must_use]
    pub fn keys(&self) -> &KeySet {
        &self.0.keys
    }

    /// The cached result, if it is still valid.
    fn cached(
        &self,
        fingerprint: &Fingerprint,
        withdrawals: u64,
        now: Timestamp,
    ) -> Result<Option<Arc<Principal>>, TokenError> {
        let Some(token) = self.0.cache.get(fingerprint) else { return Ok(None) };
        if has_expired(token.principal.expires_at, now) {
            self.0.cache.remove(fingerprint);
            return Err(TokenError::Expired);
        }
        Ok((token.withdrawals == withdrawals).then_some(token.principal))
    }

    /// Runs all checks, and caches a valid token.
    fn verify_uncached(
        &self,
        token: &str,
        fingerprint: Fingerprint,
        withdrawals: u64,
        now: Timestamp,
    ) -> Result<Arc<Principal>, TokenError> {
        let started = Instant::now();
        let segments = JwtSegments::parse(token)?;
        let key = self.check_signature(&segments)?;
        let required = Requirements {
            key_id: key.shared_kid(),
            issuer: &self.0.config.issuer,
            audience: &self.0.config.audience,
            max_lifetime: self.0.max_lifetime,
            now,
        };
        let principal = Arc::new(Claims::parse(&segments.payload)?.check(&required)?);
        self.0.metrics.observe(started.elapsed());
        self.0.cache.insert(fingerprint, CachedToken { principal: Arc::clone(&principal), withdrawals }, now);
        Ok(principal)
    }

    fn check_signature(&self, segments: &JwtSegments<'_>) -> Result<Arc<PublicKey>, TokenError> {
        let kid = segments.header.kid.as_str();
        if self.0.revocations.as_ref().is_some_and(|view| view.withdrawn_keys().contains(kid)) {
            return Err(TokenError::Revoked);
        }
        let Some(key) = self.0.keys.get(kid) else { return Err(self.unknown_key()) };
        self.0.metrics.keys_found.inc();
        if segments.header.alg != key.algorithm().name() {
            return Err(TokenError::Algorithm);
        }
        if key.verify_signature(segments.signing_input.as_bytes(), &segments.signature) {
            Ok(key)
        } else {
            Err(TokenError::Signature)
        }
    }

    /// The error of a token whose key is not known, which is looked for.
    fn unknown_key(&self) -> TokenError {
        let Inner { keys, revocations, metrics, .. } = &*self.0;
        metrics.keys_unknown.inc();
        keys.request_refresh();
        if !keys.is_loaded() {
            return TokenError::NoKeys;
        }
        let withdrawn = revocations.as_ref().map_or(0, |view| view.withdrawn_keys().count());
        if keys.is_older_than(withdrawn) { TokenError::KeysOutdated } else { TokenError::UnknownKey }
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("config", &self.0.config)
            .field("keys", &self.0.keys)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
