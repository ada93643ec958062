//! Workload identities: SPIFFE IDs, X.509-SVIDs and their verification.
//!
//! | file | holds |
//! |---|---|
//! | `spiffe.rs` | [`TrustDomain`] and [`SpiffeId`] |
//! | `svid.rs` | [`Svid`]: a certificate that conforms to our profile of X.509-SVID |
//! | `bundle.rs` | [`TrustBundle`]: the root certificates of each trust domain |
//! | `verifier.rs` | verification of a peer's certificate, for clients and servers |
//! | `denylist.rs` | [`Denylist`]: workloads and certificates that are refused in spite of a trusted root |
//! | `source.rs` | [`CredentialSource`]: where certificate, key and roots come from, and when they change |
//! | `credentials.rs` | [`Identity`]: the process's own certificate, key and roots, replaced atomically |
//! | `follow.rs` | keeps an [`Identity`] up to date with its source |
//! | `lifetime.rs` | when connections are to be replaced and must end |
//! | `inspect.rs` | a certificate as an operator reads it |
//! | `authority.rs` | [`Authority`]: the development CA |
//!
//! The profile is the SPIFFE X.509-SVID standard, stricter where the standard leaves a choice. WebPKI checks none of it:
//! it would accept any certificate of the right CA for any workload.

mod authority;
mod bundle;
mod credentials;
mod denylist;
mod error;
mod files;
mod follow;
mod inspect;
mod lifetime;
mod source;
mod spiffe;
mod svid;
#[cfg(test)]
pub(crate) mod testing;
mod verifier;

pub use authority::{Authority, AuthorityError, IssueOptions, RotationStep};
pub use bundle::{BundleError, TrustBundle};
pub use credentials::Identity;
pub use denylist::{Denylist, DenylistError};
pub use error::IdentityError;
pub use follow::{CertificateMetrics, Follower};
pub use inspect::{CertificateSummary, MalformedCertificate, certificates_in, server_chain};
pub(crate) use lifetime::{ConnectionEnd, ConnectionLifetime};
pub use source::{CredentialSource, Files, IdentityFiles, UnverifiedCredentials, WatchedFiles};
pub use spiffe::{SpiffeId, SpiffeIdError, TrustDomain};
pub use svid::{Svid, SvidError};
pub use verifier::{Usage, VerifyError, verify};
