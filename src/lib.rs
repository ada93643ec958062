//! The contracts of Drystone: messages, typed clients, and the access rule and policy of each RPC.
//!
//! The crate is generated from the `.proto` files in `proto/`. A Rust client needs this crate and a channel:
//!
//! ```no_run
//! use drystone::user::v1::{GetMeRequest, user_service_client::UserServiceClient};
//!
//! # async fn example(channel: tonic::transport::Channel) -> Result<(), tonic::Status> {
//! let me = UserServiceClient::new(channel).get_me(GetMeRequest {}).await?;
//! println!("{}", me.into_inner().display_name);
//! # Ok(())
//! # }
//! ```
//!
//! The status of a failed call has a [`Reason`] in its `google.rpc.ErrorInfo`.
//!
//! A third-party service compiles its own contract, which imports this one, with `drystone-build`, and includes the result
//! with [`include_contract!`].

pub mod codec;
pub mod reason;
pub mod status;

pub use drystone_contract as contract;
pub use reason::Reason;

/// Third-party messages, under the paths of generated code.
pub mod google {
    /// The details of a status: `ErrorInfo`, `BadRequest`, `RetryInfo` and others.
    pub mod rpc {
        pub use tonic_types::pb::*;
    }
}

include!(concat!(env!("OUT_DIR"), "/contract.rs"));

/// The contracts of Drystone, without those of third-party services.
///
/// # Errors
/// [`ContractError`](contract::ContractError) if the embedded contract is invalid.
pub fn contracts() -> Result<contract::Contracts, contract::ContractError> {
    contract::Contracts::load([CONTRACT.clone()])
}

/// Includes the generated code of a crate's contract: a module for each package, and `CONTRACT`.
#[macro_export]
macro_rules! include_contract {
    () => {
        include!(concat!(env!("OUT_DIR"), "/contract.rs"));
    };
}
