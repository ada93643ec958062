//! Starts meshes for tests, and speaks to them from outside.
//!
//! Everything here is black-box: a [`Mesh`] is the real binary, started as an operator starts it, and reached over
//! real sockets with real mutual TLS. Nothing of the mesh's own code is used but the contracts.
//!
//! ```no_run
//! # // Cargo sets the variable for the tests of a crate with that binary alone.
//! # macro_rules! env { ($name:literal) => { $name } }
//! # async fn example() {
//! use drystone_testing::{Mesh, User};
//!
//! // The binary of your own crate, with your service in it.
//! let mesh = Mesh::setup().binary(env!("CARGO_BIN_EXE_orders")).start();
//! let (user, tokens) = User::signed_in(&mesh).await;
//! let me = mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
//! assert_eq!(me.json()["email"], user.email);
//! # }
//! ```
//!
//! [`matrix::assert_rules_hold`] calls every RPC of a contract as every workload, and holds what happens against the rules.
//!
//! | environment variable | what it does |
//! |---|---|
//! | `DRYSTONE_BIN` | tests this binary instead of the one that Cargo built beside the test |
//! | `DRYSTONE_TEST_KEEP` | keeps the directories of the meshes, logs inside, and says where they are |

pub mod binary;
pub mod certs;
pub mod grpc;
mod home;
pub mod logs;
pub mod matrix;
mod mesh;
mod metrics;
mod partial_service;
pub mod ports;
pub mod process;
mod rest;
mod user;
pub mod wait;

use std::sync::{Arc, LazyLock};

use drystone::contract::{Contracts, EncodedContract, Method};

pub use self::{
    home::Home,
    mesh::{Mesh, Setup, Starting},
    metrics::Metrics,
    partial_service::PartialService,
    ports::free_addresses,
    rest::{Answer, Call, Rest, address},
    user::{Tokens, User, unique_email},
};

/// The contracts of Drystone.
#[must_use]
pub fn contracts() -> &'static Contracts {
    static CONTRACTS: LazyLock<Contracts> =
        LazyLock::new(|| drystone::contracts().unwrap_or_else(|error| panic!("{error}")));
    &CONTRACTS
}

/// The contracts of Drystone and this one, as a mesh merges them.
///
/// # Panics
/// If they cannot be merged.
#[must_use]
pub fn contracts_with(contract: &EncodedContract) -> Contracts {
    let all = [drystone::CONTRACT.clone(), contract.clone()];
    Contracts::load(all).unwrap_or_else(|error| panic!("{error}"))
}

/// Every RPC of Drystone.
#[must_use]
pub fn methods() -> &'static [Arc<Method>] {
    contracts().methods()
}

/// The services of Drystone that have a gRPC address.
#[must_use]
pub fn services() -> Vec<&'static str> {
    contracts().served_workloads().iter().map(String::as_str).collect()
}

/// What a process of Drystone can run: its services, and the edge, which is last.
#[must_use]
pub fn parts() -> Vec<&'static str> {
    services().into_iter().chain(["edge"]).collect()
}

/// The workloads of Drystone: its services, and those in front of them.
#[must_use]
pub fn workloads() -> Vec<&'static str> {
    contracts().workloads().iter().map(String::as_str).collect()
}
