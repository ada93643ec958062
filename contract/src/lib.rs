//! Contracts: the access rule, policy and REST bindings of each RPC.
//!
//! A contract is an encoded `google.protobuf.FileDescriptorSet`. The same code decodes and validates it when it is compiled
//! (`drystone-build`), embedded, or loaded from a file at startup:
//!
//! 1. [`EncodedContract`] is the bytes and their origin.
//! 2. [`Contract::decode`] decodes one contract into its own descriptor pool and validates it: a rule for each RPC, REST
//!    bindings that match their messages, an idempotency level.
//! 3. [`Contracts::merge`] merges several and validates them together: no duplicate services, workloads or permissions, no
//!    overlapping REST paths, and no rule with an unknown workload or permission.
//!
//! | module | content |
//! |---|---|
//! | [`method`] | one RPC and its rule |
//! | [`changes`] | looser and stricter rules between two sets of contracts |
//! | [`files`] | the files of a descriptor set, as bytes |
//! | [`rest`] | path templates, and the binding of message fields to path and body |
//! | `options` | the custom options of `drystone/access/v1/access.proto` |
//! | `decode`, `merge` | the steps above |

pub mod changes;
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
    decode::is_permission_name,
    encoded::{ContractFileError, EncodedContract},
    merge::Contracts,
    method::{Audit, Deadline, Factors, Idempotency, Method, NON_SERVING_WORKLOADS, Permission, Policy, Subject},
};

/// The errors of a contract, one finding per line. Each names the RPC and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractError {
    /// The name of the contract, or of all merged contracts.
    pub contract: String,
    /// The findings.
    pub findings: Vec<String>,
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the contract {} is invalid:", self.contract)?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

impl std::error::Error for ContractError {}
