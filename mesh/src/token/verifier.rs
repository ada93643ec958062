//! The verifier: from a token to the user that it proves.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Claims, KeySet, Principal, RevocationView, TokenError,
    cache::{Fingerprint, Verified, VerifiedTokens},
    claims::{Expected, has_ended},
    shape::{self, Parts},
};
use crate::clock::{Clock, Timestamp};

/// What a verifier takes for a token of ours.
#[derive(Debug, Clone)]
pub struct VerifierConfig {
    /// The `iss` that a token must have.
    pub issuer: String,
    /// The `aud` that a token must have.
    pub audience: String,
    /// The longest time from `iat` to `exp`.
    pub max_lifetime: Duration,
    /// How many verified tokens are remembered.
    pub cache_capacity: usize,
}

impl VerifierConfig {
    /// Tokens of this issuer for this audience, that live an hour at most; 10 000 of them are remembered.
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

/// Verifies access tokens, without waiting for anybody. Clones share what they remember.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    config: VerifierConfig,
    max_lifetime: i64,
    keys: KeySet,
    revocations: RevocationView,
    clock: Clock,
    verified: VerifiedTokens,
}

impl Verifier {
    /// A verifier that checks with these keys and revocations, which others keep up to date.
    #[must_use]
    pub fn new(config: VerifierConfig, keys: KeySet, revocations: RevocationView, clock: Clock) -> Self {
        let max_lifetime = i64::try_from(config.max_lifetime.as_secs()).unwrap_or(i64::MAX);
        let verified = VerifiedTokens::new(config.cache_capacity);
        Self(Arc::new(Inner { config, max_lifetime, keys, revocations, clock, verified }))
    }

    /// The user that the token proves. `token` is what follows `Bearer ` in the `authorization` header.
    ///
    /// A token that was verified before costs its SHA-256, one look-up and the question whether it has been revoked
    /// since; nothing is allocated.
    ///
    /// # Errors
    /// The first thing that is wrong with the token.
    pub fn verify(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        if token.len() > shape::MAX_LENGTH {
            return Err(TokenError::TooLong);
        }
        let now = self.0.clock.now();
        let fingerprint = Fingerprint::of(token);
        // Read before any key: a key that is withdrawn from here on makes the count, and so the entry, out of date.
        let withdrawals = self.0.keys.withdrawals();
        let principal = match self.recall(&fingerprint, withdrawals, now)? {
            Some(principal) => principal,
            // A server that has just started and heard of no revocation yet cannot tell a live token from a dead one.
            None if self.0.revocations.last_heard().is_none() => return Err(TokenError::NoRevocations),
            None => self.prove(token, fingerprint, withdrawals, now)?,
        };
        if self.0.revocations.is_void(&principal) {
            return Err(TokenError::Revoked);
        }
        Ok(principal)
    }

    /// The keys that it checks with.
    #[must_use]
    pub fn keys(&self) -> &KeySet {
        &self.0.keys
    }

    /// The revocations that it knows of.
    #[must_use]
    pub fn revocations(&self) -> &RevocationView {
        &self.0.revocations
    }

    /// What was found out about the token before, if that still holds.
    fn recall(
        &self,
        fingerprint: &Fingerprint,
        withdrawals: u64,
        now: Timestamp,
    ) -> Result<Option<Arc<Principal>>, TokenError> {
        let Some(verified) = self.0.verified.get(fingerprint) else { return Ok(None) };
        if has_ended(verified.principal.expires_at, now) {
            self.0.verified.remove(fingerprint);
            return Err(TokenError::Expired);
        }
        Ok((verified.withdrawals == withdrawals).then_some(verified.principal))
    }

    /// The whole way, and remembers the outcome if it is a good one.
    fn prove(
        &self,
        token: &str,
        fingerprint: Fingerprint,
        withdrawals: u64,
        now: Timestamp,
    ) -> Result<Arc<Principal>, TokenError> {
        let parts = Parts::of(token)?;
        self.check_signature(&parts)?;
        let expected = Expected {
            issuer: &self.0.config.issuer,
            audience: &self.0.config.audience,
            max_lifetime: self.0.max_lifetime,
            now,
        };
        let principal = Arc::new(Claims::parse(&parts.payload)?.check(&expected)?);
        self.0.verified.insert(fingerprint, Verified { principal: Arc::clone(&principal), withdrawals });
        Ok(principal)
    }

    fn check_signature(&self, parts: &Parts<'_>) -> Result<(), TokenError> {
        let Some(key) = self.0.keys.get(&parts.header.kid) else {
            self.0.keys.want();
            return Err(if self.0.keys.is_loaded() { TokenError::UnknownKey } else { TokenError::NoKeys });
        };
        if parts.header.alg != key.algorithm().name() {
            return Err(TokenError::Algorithm);
        }
        if key.has_signed(parts.signed.as_bytes(), &parts.signature) { Ok(()) } else { Err(TokenError::Signature) }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("config", &self.0.config).field("keys", &self.0.keys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
