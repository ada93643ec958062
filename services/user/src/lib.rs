//! User accounts. This service owns their e-mail addresses, display names and roles.
//!
//! It never sees a password (auth does) or a session (session does). A service that signs a user in looks up here which
//! account an e-mail address belongs to, and its roles and permissions.
//!
//! | module | contents |
//! |---|---|
//! | [`rpc`](crate::Service) | the RPCs: convert, call the domain, convert back |
//! | [`Account`], [`Email`], [`DisplayName`] | the fields of an account, and their valid values |
//! | [`Role`], [`Roles`] | the roles, and the permissions of each |
//! | [`permission`] | who may read and change an account |
//! | [`UserStore`] | the store of accounts; all SQL is in `store.rs` |
//! | [`Error`] | the errors of this service, and the reason of each |
//!
//! # How to add an RPC
//!
//! For example, `DeleteUser`:
//!
//! 1. **Contract.** In `proto/drystone/user/v1/user.proto` write the RPC, its two messages and a comment for each.
//!    Give it a rule (who may call, for whom, with what permission), its idempotency, the valid values of its
//!    fields and, if it is public, its REST path. Then `cargo check`: the build says what is missing.
//! 2. **Domain.** Write the rules of accounts that hold for every caller in a file named for its subject. Raw strings
//!    become types here ([`Email::parse`]). A new error is a variant of [`Error`] with its reason beside it.
//! 3. **Store.** Add a method with its SQL to [`UserStore`], and its promises to `tests/user/store.rs`, which runs on
//!    both engines. New columns are a new file for each engine in `migrations/`, listed in [`MIGRATIONS`]; a released
//!    file is never edited.
//! 4. **Handler.** The compiler now asks for the method in `rpc/user_service.rs`. It parses the message, checks
//!    [`permission`] if there is a user, calls the store, and builds the response.
//! 5. **Tests.** `tests/user/rpc.rs` calls the handler as a given user. The access matrix in `tests/` covers
//!    authorization for every RPC in the contract without further code; the tests of the edge cover the REST path.

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

/// The dependencies of the service.
pub struct Deps {
    /// The store of accounts.
    pub store: UserStore,
    /// The session service, which voids the tokens of a user whose roles change.
    pub sessions: SessionServiceClient<Channel>,
    /// The permissions that the contracts of the mesh declare.
    pub permissions: Permissions,
    /// The source of time.
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
    /// Creates the service.
    #[must_use]
    pub fn new(Deps { store, sessions, permissions, clock }: Deps) -> Self {
        Self { store, sessions, permissions, clock }
    }

    /// The tonic server of this service.
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

/// The service as a module of a binary.
#[must_use]
pub const fn module() -> Module {
    Module::of::<Service>()
}
