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
//! For example `PinProperty`, which stores a new column. Paths are relative to this crate.
//!
//! | file | what |
//! |---|---|
//! | `proto/drystone/property/v1/property.proto` (of the repository) | the RPC and its messages, with comments, rule, idempotency, valid values and REST path; `cargo check` reports a missing rule or idempotency level |
//! | `migrations/sqlite/NNNN_pin.sql`, `migrations/postgres/NNNN_pin.sql` | the column; a released file is never edited |
//! | `src/store.rs` | the migration in [`MIGRATIONS`], and a method of [`PropertyStore`] with the SQL; each method takes the owner, so that the property of another user is not found |
//! | `src/property.rs` | the field of [`Property`] |
//! | `src/rpc/property_service.rs` | the handler (parse the message, take the owner from the principal of the call, call the store) and the conversion of [`Property`] to its message |
//! | `tests/property/store.rs`, `tests/property/indexes.rs` | the promises of the store on both engines; the new query, and the expected number of index scans |
//! | `tests/property/rpc.rs` | the handler, called as a given user |
//!
//! Those are 9 files; skip the rows that your RPC does not need. A value with rules of its own is a type in a file named for
//! its subject, exported in `src/lib.rs`; a new failure is a variant in `src/error.rs`. A write that reads first is a
//! transaction under `Db::retry`. Routes, reflection, metrics and the access matrix in `tests/access/matrix.rs` follow from
//! the contract; additions do not touch the baseline in `proto/`. [contracts.md](../../../docs/contracts.md) has the style.

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
