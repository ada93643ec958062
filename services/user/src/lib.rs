//! Accounts: who the end users are. This service owns their addresses, names and roles.
//!
//! It never sees a password (auth does) and never a session (session does). A caller that is signing somebody in
//! learns from it which account an address belongs to, and what that account may do.
//!
//! | room | holds |
//! |---|---|
//! | [`rpc`](crate::Service) | the RPCs: convert, call the domain, convert back |
//! | [`Account`], [`Email`], [`DisplayName`] | what an account is made of, and which values are valid |
//! | [`Role`], [`Roles`] | what roles there are, and which permissions each brings |
//! | [`permission`] | who may see and change an account |
//! | [`UserStore`] | where accounts are kept; all SQL is in `store.rs` |
//! | [`Error`] | how this service fails, and the reason that the caller hears |
//!
//! # How to add an RPC
//!
//! Say, `DeleteUser`:
//!
//! 1. **Contract.** In `proto/drystone/user/v1/user.proto` write the RPC, its two messages and a comment for each.
//!    Give it a rule (who may call, for whom, with what permission), its idempotency, the valid values of its
//!    fields and, if it is meant for the outside, its REST path. Then `cargo check`: the build says what is missing.
//! 2. **Domain.** Write what is true of accounts, whoever asks, in a file named for what it is. Raw strings become
//!    types here ([`Email::parse`]). A new failure is a variant of [`Error`] with its reason beside it.
//! 3. **Store.** Add a method with its SQL to [`UserStore`], and to `tests/user/store.rs` what it promises on both engines. New columns are a new file for each engine in `migrations/`, listed in [`MIGRATIONS`]; a file
//!    that has been released is never edited.
//! 4. **Handler.** The compiler now asks for the method in `rpc/user_service.rs`. It takes the message apart, asks
//!    [`permission`] if there is a user, calls the store, and puts the answer together.
//! 5. **Tests.** `tests/user/rpc.rs` calls the handler as a given user. Who may call at all is proven for every RPC in the
//!    contract by the access matrix in `tests/`, without a line of yours; so is the REST path by the edge.

mod account;
mod error;
mod module;
pub mod permission;
mod role;
mod rpc;
mod store;

use std::fmt;

use drystone::{
    session::v1::session_service_client::SessionServiceClient, user::v1::user_service_server::UserServiceServer,
};
use drystone_mesh::{client::Channel, clock::Clock, module::Module};

pub use crate::{
    account::{Account, NewAccount},
    error::Error,
    role::{Permissions, Role, Roles, UnknownRole},
    store::{MIGRATIONS, UserStore},
};

pub use drystone_mesh::{display_name::DisplayName, email::Email};

/// The workload's name, as in its SPIFFE ID.
pub const NAME: &str = "user";

/// What the service needs of the world.
pub struct Deps {
    /// Where the accounts are.
    pub store: UserStore,
    /// Who voids the tokens of a user whose roles change.
    pub sessions: SessionServiceClient<Channel>,
    /// What there is to hold in this mesh.
    pub permissions: Permissions,
    /// The time.
    pub clock: Clock,
}

/// `drystone.user.v1.UserService`.
pub struct Service {
    store: UserStore,
    sessions: SessionServiceClient<Channel>,
    permissions: Permissions,
    clock: Clock,
}

impl Service {
    /// The service over these.
    #[must_use]
    pub fn new(Deps { store, sessions, permissions, clock }: Deps) -> Self {
        Self { store, sessions, permissions, clock }
    }

    /// The service as a server takes it.
    #[must_use]
    pub fn into_server(self) -> UserServiceServer<Self> {
        UserServiceServer::new(self)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// The service as a part of a binary.
#[must_use]
pub const fn module() -> Module {
    Module::of::<Service>()
}
