//! Black-box testing of meshes.
//!
//! A [`Mesh`] is the real binary, started as an operator starts it, and called over real sockets with mutual TLS. Of
//! the mesh's own code only the contracts are used.
//!
//! ```no_run
//! # // Cargo sets the variable only for the tests of a crate that has the binary.
//! # macro_rules! env { ($name:literal) => { $name } }
//! # async fn example() {
//! use drystone_testing::{Mesh, User};
//!
//! // The binary of your crate, which includes your service.
//! let mesh = Mesh::setup().binary(env!("CARGO_BIN_EXE_orders")).start();
//! let (user, tokens) = User::signed_in(&mesh).await;
//! let me = mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
//! assert_eq!(me.json()["email"], user.email);
//! # }
//! ```
//!
//! [`matrix::assert_rules_hold`] calls every RPC of a contract as every workload and checks the access rules. [`Passkey`] is a passkey
//! without a device.
//!
//! | environment variable | effect |
//! |---|---|
//! | `DRYSTONE_BIN` | tests this binary instead of the one that Cargo built |
//! | `DRYSTONE_TEST_KEEP` | keeps the directories of the meshes, with their logs, and prints their paths |

pub mod binary;
pub mod certs;
pub mod grpc;
mod home;
pub mod logs;
pub mod matrix;
mod mesh;
mod metrics;
mod partial_service;
mod passkey;
pub mod ports;
pub mod process;
mod rest;
mod user;
pub mod wait;

use std::sync::{Arc, LazyLock};

use drystone::contract::{Contracts, EncodedContract, Method};

pub use self::{
    home::Home,
    mesh::{MASTER_KEY, Mesh, Setup, Starting},
    metrics::MetricsSnapshot,
    partial_service::PartialService,
    passkey::Passkey,
    ports::free_addresses,
    rest::{RestClient, RestRequest, RestResponse, address},
    user::{PASSWORD, Tokens, User, unique_email},
};

/// The contracts of Drystone.
#[must_use]
pub fn contracts() -> &'static Contracts {
    static CONTRACTS: LazyLock<Contracts> =
        LazyLock::new(|| drystone::contracts().unwrap_or_else(|error| panic!("{error}")));
    &CONTRACTS
}

/// The contracts of Drystone merged with another one.
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

/// The modules of Drystone that a process can run: its services, then the edge.
#[must_use]
pub fn modules() -> Vec<&'static str> {
    services().into_iter().chain(["edge"]).collect()
}

/// The workloads of Drystone: its services, the entry points and the operator.
#[must_use]
pub fn workloads() -> Vec<&'static str> {
    contracts().workloads().iter().map(String::as_str).collect()
}
