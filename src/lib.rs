//! The contracts of Drystone: messages, typed clients, and what the contracts say about each RPC.
//!
//! Everything here is made from the `.proto` files in `proto/`. A Rust client needs this crate and a
//! channel:
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
//! A call that is refused carries a [`Reason`] in the `google.rpc.ErrorInfo` of its status.
//!
//! A service of another team compiles its own contract with `drystone-build`, which imports this one, and takes the result
//! in with [`include_contract!`].

pub mod codec;
pub mod reason;

pub use drystone_contract as contract;
pub use reason::Reason;

/// Messages of others, under the names that generated code gives them.
pub mod google {
    /// The details of a status: `ErrorInfo`, `BadRequest`, `RetryInfo` and others.
    pub mod rpc {
        pub use tonic_types::pb::*;
    }
}

include!(concat!(env!("OUT_DIR"), "/contract.rs"));

/// The contracts of Drystone alone: of a mesh without services of other teams.
///
/// # Errors
/// [`ContractError`](contract::ContractError) if the contract that is compiled in cannot be read.
pub fn contracts() -> Result<contract::Contracts, contract::ContractError> {
    contract::Contracts::load([CONTRACT.clone()])
}

/// Takes in what `drystone-build` made of a crate's contract: a module for each package, and `CONTRACT`.
#[macro_export]
macro_rules! include_contract {
    () => {
        include!(concat!(env!("OUT_DIR"), "/contract.rs"));
    };
}
