//! What a contract says of each RPC: who may call it, for whom, over which REST path, for how long.
//!
//! A contract is an encoded `google.protobuf.FileDescriptorSet`. It is read and checked here, by the same code whether it
//! is being compiled (`drystone-build`), was compiled in, or comes from a file at start:
//!
//! 1. [`EncodedContract`] is the bytes, and where they come from.
//! 2. [`Contract::decode`] reads one of them, into a descriptor pool of its own, and checks all that one contract can be
//!    checked for: a rule for each RPC, REST bindings that fit their messages, a stated idempotency level.
//! 3. [`Contracts::merge`] puts several together, and checks what holds between them: no service, workload or permission
//!    twice, no REST path that takes requests from another contract, and no rule that names an unknown workload or permission.
//!
//! | module | content |
//! |---|---|
//! | [`method`] | one RPC and its rule |
//! | [`files`] | the files of a descriptor set, byte for byte |
//! | [`rest`] | path templates, and how the fields of a message are bound to a path and a body |
//! | `options` | the custom options of `drystone/access/v1/access.proto`, as a pool knows them |
//! | `decode`, `merge` | the steps above |

mod decode;
mod encoded;
pub mod files;
mod merge;
pub mod method;
mod options;
pub mod rest;

use std::fmt;

pub use self::{
    decode::Contract,
    encoded::{ContractFileError, EncodedContract},
    merge::{Contracts, FRONTS},
    method::{Audit, Deadline, Idempotency, Method, Permission, Policy, Subject},
};

/// All that is wrong with a contract, one finding a line. Each names the RPC and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractError {
    /// The name of the contract, or of all that were merged.
    pub contract: String,
    /// What is wrong.
    pub findings: Vec<String>,
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the contract {} cannot be used:", self.contract)?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

impl std::error::Error for ContractError {}
