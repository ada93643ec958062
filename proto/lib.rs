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

// Generated code is generated for a machine: what pedantic lints ask of people does not concern it.
#![allow(clippy::pedantic, missing_docs)]

pub mod codec;
pub mod contract;
pub mod reason;

pub use reason::Reason;

/// Who may call what: the options that rules are written in.
pub mod access {
    pub mod v1 {
        tonic::include_proto!("drystone.access.v1");
    }
}

/// Sign-in and keys.
pub mod auth {
    pub mod v1 {
        tonic::include_proto!("drystone.auth.v1");
    }
}

/// Properties.
pub mod property {
    pub mod v1 {
        tonic::include_proto!("drystone.property.v1");
    }
}

/// Sessions and revocations.
pub mod session {
    pub mod v1 {
        tonic::include_proto!("drystone.session.v1");
    }
}

/// Accounts.
pub mod user {
    pub mod v1 {
        tonic::include_proto!("drystone.user.v1");
    }
}

mod generated {
    // The generators name our types from the root of their package.
    use crate as drystone;

    include!(concat!(env!("OUT_DIR"), "/validate_impl.rs"));
    include!(concat!(env!("OUT_DIR"), "/redacted_debug.rs"));
}
