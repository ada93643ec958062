//! Properties: the things that users own. This service says which user has which relation to which property.
//!
//! It knows users by their ids alone. A caller that is signing somebody in learns from it what goes into the token
//! of that user; everybody else sees their own properties, and of those of others not even that they are there.
//!
//! | room | holds |
//! |---|---|
//! | [`rpc`](crate::Service) | the RPCs: convert, call the domain, convert back |
//! | [`Property`], [`DisplayName`], [`Description`], [`Labels`] | what a property is made of, and which values are valid |
//! | [`Relation`], [`Claim`] | what a user can be to a property |
//! | [`PropertyStore`] | where properties are kept; all SQL is in `store.rs` |
//! | [`Error`] | how this service fails, and the reason that the caller hears |
//!
//! # How to add an RPC
//!
//! Say, `ArchiveProperty`:
//!
//! 1. **Contract.** In `proto/drystone/property/v1/property.proto` write the RPC, its two messages and a comment for
//!    each. Give it a rule (who may call, for whom, with what permission), its idempotency, the valid values of its
//!    fields and, if it is meant for the outside, its REST path. Then `cargo check`: the build says what is missing.
//! 2. **Domain.** Write what is true of properties, whoever asks, in a file named for what it is. Raw strings become
//!    types here ([`Labels::parse`]). A new failure is a variant of [`Error`] with its reason beside it.
//! 3. **Store.** Add a method with its SQL to [`PropertyStore`], and to `tests/property/store.rs` what it promises on both engines. Each method takes the owner: somebody else's property is not found. New columns are a new file
//!    in `migrations/`, one for each engine, listed in [`MIGRATIONS`]; a file that has been released is never edited.
//! 4. **Handler.** The compiler now asks for the method in `rpc/property_service.rs`. It takes the message apart,
//!    takes the owner from the call's principal, calls the store, and puts the answer together.
//! 5. **Tests.** `tests/property/rpc.rs` calls the handler as a given user. Who may call at all is proven for every RPC in the
//!    contract by the access matrix in `tests/`, without a line of yours; so is the REST path by the edge.

mod content;
mod error;
mod module;
mod property;
mod relation;
mod rpc;
mod store;

use std::fmt;

use drystone::property::v1::property_service_server::PropertyServiceServer;
use drystone_mesh::{clock::Clock, module::Module};

pub use crate::{
    content::{Change, Content, Description, Labels, LabelsError},
    error::Error,
    property::{NewProperty, Property},
    relation::{Claim, Relation},
    store::{MIGRATIONS, PropertyStore},
};

pub use drystone_mesh::display_name::DisplayName;

/// The workload's name, as in its SPIFFE ID.
pub const NAME: &str = "property";

/// What the service needs of the world.
pub struct Deps {
    /// Where the properties are.
    pub store: PropertyStore,
    /// The time.
    pub clock: Clock,
}

/// `drystone.property.v1.PropertyService`.
pub struct Service {
    store: PropertyStore,
    clock: Clock,
}

impl Service {
    /// The service over these.
    #[must_use]
    pub fn new(Deps { store, clock }: Deps) -> Self {
        Self { store, clock }
    }

    /// The service as a server takes it.
    #[must_use]
    pub fn into_server(self) -> PropertyServiceServer<Self> {
        PropertyServiceServer::new(self)
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
