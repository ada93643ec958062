//! Workload identities: SPIFFE IDs, X.509-SVIDs and their verification.
//!
//! | file | holds |
//! |---|---|
//! | `spiffe.rs` | [`TrustDomain`] and [`SpiffeId`] |
//! | `svid.rs` | [`Svid`]: a certificate that conforms to our profile of X.509-SVID |
//! | `bundle.rs` | [`TrustBundle`]: the root certificates of each trust domain |
//! | `verifier.rs` | verification of a peer's certificate, for clients and servers |
//! | `credentials.rs` | [`Identity`]: the process's own certificate, key and roots, replaced atomically |
//! | `authority.rs` | [`Authority`]: the development CA |
//!
//! The profile is the SPIFFE X.509-SVID standard, stricter where the standard leaves a choice. WebPKI checks none of it:
//! it would accept any certificate of the right CA for any workload.

mod authority;
mod bundle;
mod credentials;
mod files;
mod spiffe;
mod svid;
#[cfg(test)]
pub(crate) mod testing;
mod verifier;

pub use authority::{Authority, AuthorityError, IssueOptions};
pub use bundle::{BundleError, TrustBundle};
pub use credentials::{Identity, IdentityError, IdentityFiles};
pub use spiffe::{SpiffeId, SpiffeIdError, TrustDomain};
pub use svid::{Svid, SvidError};
pub use verifier::{Usage, VerifyError, verify};
