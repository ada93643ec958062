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
//! | [`Quota`] | how much one user may store; the database counts it, in triggers |
//! | [`Error`] | the errors of this service, and the reason of each |
//!
//! # How to add an RPC
//!
//! For example `PinProperty`, which stores a new column. Paths are relative to this crate.
//!
//! | file | what |
//! |---|---|
//! | `proto/drystone/property/v1/property.proto` (of the repository) | the RPC and its messages, with comments, rule, idempotency, valid values and REST path; `cargo check` reports what is missing or contradicts itself |
//! | `migrations/sqlite/NNNN_pin.sql`, `migrations/postgres/NNNN_pin.sql` | the column, nullable or with a default; a released file is never edited |
//! | `src/store.rs` | the migration in [`MIGRATIONS`]; the column in `columns!`, `PropertyRow` and `read_property`; a method of [`PropertyStore`] with the SQL, which increases the version if a client can see the change; each method takes the owner, so that the property of another user is not found |
//! | `src/property.rs` | the field of [`Property`] |
//! | `src/rpc/property_service.rs` | the handler (parse the message, free text with [`DisplayName`] or `drystone_mesh::text`; take the owner from the principal of the call; call the store) and the conversion of [`Property`] to its message |
//! | `tests/property/store.rs`, `tests/property/indexes.rs` | the promises of the store on both engines, listed in `contract!`; the new query, and one more index scan in the lower bound |
//! | `tests/property/rpc.rs` | the handler, called as a given user |
//!
//! Those are 9 files; skip the rows that your RPC does not need. A value with rules beyond its length is a type in a file named for
//! its subject, exported in `src/lib.rs`; a new failure is a variant in `src/error.rs`. A write that reads first is a
//! transaction under `Db::retry`. Routes, reflection, metrics and the access matrix in `tests/access/matrix.rs` follow from
//! the contract; additions do not touch the baseline in `proto/`. [contracts.md](../../../docs/contracts.md) has the style.

mod config;
mod content;
mod error;
mod module;
mod property;
mod relation;
mod rpc;
mod store;
mod sweep;

use std::fmt;

use drystone::property::v1::property_service_server::PropertyServiceServer;
use drystone_mesh::{clock::Clock, module::Module};

pub use crate::{
    config::Config,
    content::{Content, ContentUpdate, Description, Labels, LabelsError},
    error::Error,
    property::{NewProperty, Property},
    relation::{Claim, Relation},
    store::{MIGRATIONS, PropertyStore, Quota},
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
