//! Identities from the SPIFFE Workload API, as SPIRE's agent serves it: a source of credentials beside files.
//!
//! | file | content |
//! |---|---|
//! | `endpoint.rs` | [`Endpoint`]: the socket of the agent |
//! | `source.rs` | [`WorkloadApiSource`]: the latest credentials of one workload |
//! | `watch.rs` | the stream of X.509 contexts, and reconnects |
//! | `context.rs` | what is taken from a context, and its bounds |
//! | `failure.rs` | why there are no new credentials |
//!
//! A context has the certificates of all workloads that a process may be. A source takes the one of its own SPIFFE ID, and the roots
//! of its trust domain; federated roots and CRLs are ignored. What it takes is verified by [`drystone_mesh::identity::Identity`], as
//! files are.

mod context;
mod endpoint;
mod failure;
mod source;
mod watch;

pub use crate::{
    endpoint::{Endpoint, EndpointError},
    source::WorkloadApiSource,
};
