//! The mesh as it is run for real: each service a process, on PostgreSQL and Redis.
//!
//! | file | holds |
//! |---|---|
//! | `rates.rs` | calls a second beside what the stores do by themselves, and the memory of each process |
//! | `growth.rs` | the same calls with ten thousand and with a million of everything |
//! | `fleet.rs` | the five processes |
//! | `servers.rs` | PostgreSQL and Redis |
//! | `people.rs`, `seed.rs` | who is stored, their tokens, and how the stores are filled |
//! | `calls.rs` | the calls |
//! | `pgbench.rs`, `redis_benchmark.rs` | the stores' own benchmark programs |

mod calls;
mod fleet;
pub(crate) mod growth;
mod people;
mod pgbench;
pub(crate) mod rates;
mod redis_benchmark;
mod seed;
mod servers;
