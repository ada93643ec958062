//! Who a workload is, and how it proves it.
//!
//! | file | holds |
//! |---|---|
//! | `spiffe.rs` | [`TrustDomain`] and [`SpiffeId`]: names of workloads |
//! | `svid.rs` | [`Svid`]: what a certificate says, once it is seen to keep to our profile of X.509-SVID |
//! | `bundle.rs` | [`TrustBundle`]: the roots of each trust domain |
//! | `verifier.rs` | one proof of a peer, for both ends of a connection |
//! | `credentials.rs` | [`Identity`]: our own certificate, key and roots, swapped as a whole |
//! | `authority.rs` | [`Authority`]: the development CA |
//!
//! The profile is that of the SPIFFE X.509-SVID standard, made stricter where the standard leaves a choice. WebPKI
//! alone checks none of it: it would take any certificate of the right CA for any workload.

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
