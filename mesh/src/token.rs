//! Access tokens: who a call is made for, proved without asking anybody.
//!
//! A token is a JWT of the profile of RFC 9068. It is checked from the cheapest question to the dearest, and the
//! first wrong answer ends the matter:
//!
//! 1. size, three segments, canonical base64url (`shape`);
//! 2. the header: `alg`, `typ` and `kid`, each once, and nothing else (`shape`, `json`);
//! 3. the key that `kid` names, and the one algorithm that the key is for ([`KeySet`]);
//! 4. the signature;
//! 5. the claims, typed, each once, and the times in them ([`Claims`]);
//! 6. what has been revoked since ([`RevocationView`]).
//!
//! [`Verifier`] goes through this list once for a token and remembers the outcome under the token's SHA-256. From
//! then on the same token costs one hash, one look-up and one question to the revocation view.
//!
//! Keys and revocations come in by [`watch_keys`] and `watch_revocations`, two loops that a node runs in the
//! background.

mod cache;
mod claims;
mod error;
mod json;
mod key;
mod key_set;
mod principal;
mod revocation;
mod shape;
#[cfg(test)]
mod testing;
mod verifier;
mod watch;

pub use claims::{Claims, is_client_id};
pub use error::TokenError;
pub use key::{Algorithm, KeyError, PublicKey};
pub use key_set::KeySet;
pub use principal::Principal;
pub use revocation::RevocationView;
pub use verifier::{Verifier, VerifierConfig};
pub(crate) use watch::watch_revocations;
pub use watch::{Transport, watch_keys};
