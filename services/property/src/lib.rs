//! Properties that users own. This service stores them, and the relations between users and properties.
//!
//! It refers to users by their ids only. A service that signs a user in gets from it the property claims for the token;
//! every other caller can read only their own properties, and cannot tell whether others exist.
//!
//! | module | contents |
//! |---|---|
//! | [`rpc`](crate::Service) | the RPCs: convert, call the domain, convert back |
//! | [`Property`], [`DisplayName`], [`Description`], [`Labels`] | the fields of a property, and their valid values |
//! | [`Relation`], [`Claim`] | the relations between a user and a property |
//! | [`PropertyStore`] | the store of properties; all SQL is in `store.rs` |
//! | [`Error`] | the errors of this service, and the reason of each |
//!
//! # How to add an RPC
//!
//! For example, `ArchiveProperty`:
//!
//! 1. **Contract.** In `proto/drystone/property/v1/property.proto` write the RPC, its two messages and a comment for
//!    each. Give it a rule (who may call, for whom, with what permission), its idempotency, the valid values of its
//!    fields and, if it is public, its REST path. Then `cargo check`: the build says what is missing.
//! 2. **Domain.** Write the rules of properties that hold for every caller in a file named for its subject. Raw strings
//!    become types here ([`Labels::parse`]). A new error is a variant of [`Error`] with its reason beside it.
//! 3. **Store.** Add a method with its SQL to [`PropertyStore`], and its promises to `tests/property/store.rs`, which
//!    runs on both engines. Each method takes the owner: the property of another user is not found. New columns are a
//!    new file in `migrations/`, one per engine, listed in [`MIGRATIONS`]; a released file is never edited.
//! 4. **Handler.** The compiler now asks for the method in `rpc/property_service.rs`. It parses the message, takes the
//!    owner from the principal of the call, calls the store, and builds the response.
//! 5. **Tests.** `tests/property/rpc.rs` calls the handler as a given user. The access matrix in `tests/` covers
//!    authorization for every RPC in the contract without further code; the tests of the edge cover the REST path.

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
    content::{Content, ContentUpdate, Description, Labels, LabelsError},
    error::Error,
    property::{NewProperty, Property},
    relation::{Claim, Relation},
    store::{MIGRATIONS, PropertyStore},
};

pub use drystone_mesh::display_name::DisplayName;

/// The workload's name, as in its SPIFFE ID.
pub const NAME: &str = "property";

/// The dependencies of the service.
pub struct Deps {
    /// The store of properties.
    pub store: PropertyStore,
    /// The source of time.
    pub clock: Clock,
}

/// `drystone.property.v1.PropertyService`.
pub struct Service {
    store: PropertyStore,
    clock: Clock,
}

impl Service {
    /// Creates the service.
    #[must_use]
    pub fn new(Deps { store, clock }: Deps) -> Self {
        Self { store, clock }
    }

    /// The tonic server of this service.
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

/// The service as a module of a binary.
#[must_use]
pub const fn module() -> Module {
    Module::of::<Service>()
}
