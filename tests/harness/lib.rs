//! Test support for the black-box tests in this directory, on top of `drystone-testing`: bad tokens, meshes of many
//! processes, and load.
//!
//! [`Cluster`] is a mesh with one process per service instance, [`Production`] one with two instances of each service on
//! PostgreSQL and Redis, and [`load::Load`] runs virtual users against it. [`fault_proxy::FaultProxy`] injects network faults in front
//! of any server.
//!
//! To add a test: put it into the file of its topic, create its own users, wait for conditions with [`wait::until`], and
//! name it for what it proves. A new binary needs a `[[test]]` entry in `Cargo.toml`.

pub mod attacks;
pub mod bad_tokens;
pub mod cluster;
mod edges;
mod envoy;
pub mod fault_proxy;
pub mod fixture;
pub mod load;
pub mod mails;
pub mod mock_service;
mod production;
pub mod readme;
pub mod sealed;
pub mod timing;
pub mod walk;

pub use drystone_testing::*;

/// The services of Drystone that have a database.
#[must_use]
pub fn services_with_database() -> Vec<&'static str> {
    let services = binary::repository().join("services");
    crate::services().into_iter().filter(|name| services.join(name).join("migrations").is_dir()).collect()
}

/// The services that use PostgreSQL while sessions are in Redis.
#[must_use]
pub fn services_on_postgres() -> Vec<&'static str> {
    services_with_database().into_iter().filter(|name| *name != "session").collect()
}

pub use self::{
    cluster::Cluster,
    edges::Edges,
    envoy::Envoy,
    production::{Production, ProductionGuard},
};
