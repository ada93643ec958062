//! Access tokens: verified locally, without a call to another service.
//!
//! A token is a JWT with the profile of RFC 9068. The cheapest checks come first, and the first failed check rejects the
//! token:
//!
//! 1. size, three segments, canonical base64url (`jwt`);
//! 2. the header: exactly `alg`, `typ` and `kid`, each once (`jwt`, `json`);
//! 3. the key that `kid` names, and the algorithm of that key ([`KeySet`]);
//! 4. the signature;
//! 5. the claims: types, duplicates, issuer, audience and validity ([`Claims`]);
//! 6. revocation ([`RevocationView`]), also of the key.
//!
//! [`TokenVerifier`] runs these checks once per token and caches the result by the token's SHA-256. From then on the same
//! token costs one hash, one cache lookup and one revocation check.
//!
//! [`watch_keys`] and `watch_revocations`, background tasks of a node, keep keys and revocations up to date.

mod bearer;
mod cache;
mod claims;
mod error;
mod json;
mod jwt;
mod key;
mod key_set;
mod metrics;
mod principal;
mod revocation;
#[cfg(test)]
pub(crate) mod testing;
mod verifier;
mod watch;
mod withdrawn;

pub use bearer::BearerToken;
pub use claims::{Claims, is_client_id};
pub use error::TokenError;
pub use jwt::MAX_LENGTH as MAX_TOKEN_LENGTH;
pub use key::{Algorithm, PublicKey, PublicKeyError};
pub use key_set::KeySet;
pub use metrics::TokenMetrics;
pub use principal::Principal;
pub use revocation::{MAX_REVOCATIONS, RevocationView};
pub use verifier::{TokenVerifier, TokenVerifierConfig};
pub(crate) use watch::watch_revocations;
pub use watch::{Transport, watch_keys};
pub use withdrawn::WithdrawnKeys;
