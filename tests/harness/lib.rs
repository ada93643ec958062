//! What the tests in this directory share, beside what `drystone-testing` has for everybody: bad tokens, meshes of many
//! processes, and load.
//!
//! A [`Cluster`] is a mesh in many processes, [`Production`] one with two instances of each on PostgreSQL and Redis, and a
//! [`load::Load`] is people who use it, and remember what they were told.
//!
//! To write a test: put it into the file of its topic, make users of your own, wait with [`wait::until`] for what is to
//! become so, and name the test for what it proves. A new file needs a `[[test]]` entry in `Cargo.toml`.

pub mod bad_tokens;
pub mod cluster;
pub mod fixture;
mod front;
pub mod impostor;
pub mod load;
mod production;
pub mod readme;

pub use drystone_testing::*;

/// The services of Drystone that have a database of their own.
#[must_use]
pub fn services_with_database() -> Vec<&'static str> {
    let services = binary::repository().join("services");
    crate::services().into_iter().filter(|name| services.join(name).join("migrations").is_dir()).collect()
}

/// Those of them that keep something in it while sessions are in Redis.
#[must_use]
pub fn services_on_postgres() -> Vec<&'static str> {
    services_with_database().into_iter().filter(|name| *name != "session").collect()
}

pub use self::{
    cluster::Cluster,
    front::Front,
    production::{Exclusive, Production},
};
