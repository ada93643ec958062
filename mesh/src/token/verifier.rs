//! Verifies access tokens.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Claims, KeySet, Principal, RevocationView, TokenError,
    cache::{CachedToken, Fingerprint, TokenCache},
    claims::{Requirements, has_expired},
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
        Self(Arc::new(Inner { config, max_lifetime, keys, revocations, clock, cache }))
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
            principal
        } else {
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

    /// Whether the token of this principal has been revoked since it was verified, for a call that lasts. At an entry point no token is.
    #[must_use]
    pub fn is_revoked(&self, principal: &Principal) -> bool {
        self.0.revocations.as_ref().is_some_and(|view| view.is_revoked(principal))
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
        let segments = JwtSegments::parse(token)?;
        self.check_signature(&segments)?;
        let required = Requirements {
            issuer: &self.0.config.issuer,
            audience: &self.0.config.audience,
            max_lifetime: self.0.max_lifetime,
            now,
        };
        let principal = Arc::new(Claims::parse(&segments.payload)?.check(&required)?);
        self.0.cache.insert(fingerprint, CachedToken { principal: Arc::clone(&principal), withdrawals }, now);
        Ok(principal)
    }

    fn check_signature(&self, segments: &JwtSegments<'_>) -> Result<(), TokenError> {
        let Some(key) = self.0.keys.get(&segments.header.kid) else {
            self.0.keys.request_refresh();
            return Err(if self.0.keys.is_loaded() { TokenError::UnknownKey } else { TokenError::NoKeys });
        };
        if segments.header.alg != key.algorithm().name() {
            return Err(TokenError::Algorithm);
        }
        if key.verify_signature(segments.signing_input.as_bytes(), &segments.signature) {
            Ok(())
        } else {
            Err(TokenError::Signature)
        }
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
