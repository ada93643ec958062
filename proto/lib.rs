//! The contracts of Drystone: messages, typed clients, and what the contracts say about each RPC.
//!
//! Everything here is made from the `.proto` files beside this one. A Rust client needs this crate and a
//! channel:
//!
//! ```no_run
//! use drystone::user::v1::{GetMeRequest, user_service_client::UserServiceClient};
//!
//! # async fn example(channel: tonic::transport::Channel) -> Result<(), tonic::Status> {
//! let me = UserServiceClient::new(channel).get_me(GetMeRequest {}).await?;
//! println!("{}", me.into_inner().user.unwrap_or_default().display_name);
//! # Ok(())
//! # }
//! ```
//!
//! A call that is refused carries a [`Reason`] in the `google.rpc.ErrorInfo` of its status.

pub mod codec;
pub mod contract;
pub mod reason;

pub use reason::Reason;

/// What is generated from the package `drystone.NAME.v1`. What lints ask of people does not concern it.
macro_rules! generated {
    ($($(#[$doc:meta])+ $name:ident $package:literal,)+) => {
        $(
            $(#[$doc])+
            #[allow(clippy::all, clippy::pedantic, missing_docs)]
            pub mod $name {
                /// Version 1.
                pub mod v1 {
                    tonic::include_proto!($package);
                }
            }
        )+
    };
}

generated! {
    /// Who may call what: the options that rules are written in.
    access "drystone.access.v1",
    /// Sign-in and keys.
    auth "drystone.auth.v1",
    /// Properties.
    property "drystone.property.v1",
    /// Sessions and revocations.
    session "drystone.session.v1",
    /// Accounts.
    user "drystone.user.v1",
}

#[allow(clippy::all, clippy::pedantic)]
mod generated_impls {
    // The generators name our types from the root of their package.
    use crate as drystone;

    include!(concat!(env!("OUT_DIR"), "/validate_impl.rs"));
    include!(concat!(env!("OUT_DIR"), "/redacted_debug.rs"));
}
