//! Starts meshes for the tests in this directory, and speaks to them from outside.
//!
//! Everything here is black-box: a [`Mesh`] is the real binary, started as an operator starts it, and reached over
//! real sockets with real mutual TLS. Nothing of the mesh's own code is used but the contracts.
//!
//! ```no_run
//! # async fn example() {
//! use drystone_tests::{Mesh, User};
//!
//! let mesh = Mesh::shared(); // or Mesh::start() for one's own
//! let (user, tokens) = User::signed_in(mesh).await;
//! let me = mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
//! assert_eq!(me.json()["email"], user.email);
//! # }
//! ```
//!
//! A [`Cluster`] is the same in many processes, [`Production`] one with two instances of each on PostgreSQL and Redis, and a
//! [`load::Load`] is people who use it, and remember what they were told.
//!
//! To write a test: put it into the file of its topic, make users of your own, wait with [`wait::until`] for what is to
//! become so, and name the test for what it proves. A new file needs a `[[test]]` entry in `Cargo.toml`.
//!
//! | environment variable | what it does |
//! |---|---|
//! | `DRYSTONE_BIN` | tests this binary instead of the one that Cargo built beside the test |
//! | `DRYSTONE_TEST_KEEP` | keeps the directories of the meshes, logs inside, and says where they are |

pub mod bad_tokens;
pub mod binary;
pub mod certs;
pub mod cluster;
mod front;
pub mod grpc;
mod home;
pub mod impostor;
pub mod load;
pub mod logs;
mod mesh;
mod metrics;
mod ports;
pub mod process;
mod production;
pub mod readme;
mod rest;
mod user;
pub mod wait;

pub use self::{
    cluster::Cluster,
    front::Front,
    home::Home,
    mesh::{Mesh, SERVICES, Setup, Starting, WORKLOADS},
    metrics::Metrics,
    ports::free_addresses,
    production::{Exclusive, Production},
    rest::{Answer, Call, Rest},
    user::{Tokens, User, unique_email},
};
