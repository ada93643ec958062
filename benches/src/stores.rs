//! The mesh as in production: one process per service, on PostgreSQL and Redis.
//!
//! | file | content |
//! |---|---|
//! | `rates.rs` | calls per second compared with the stores alone, and the memory of each process |
//! | `growth.rs` | the same calls with ten thousand and with a million users |
//! | `sqlite.rs` | the user service on SQLite, of both sizes |
//! | `import.rs` | an import of a hundred thousand accounts |
//! | `roles.rs` | the evaluation of permissions, and a change of a role that many users have |
//! | `processes.rs` | the processes of the mesh |
//! | `servers.rs` | PostgreSQL and Redis |
//! | `users.rs`, `seed.rs` | the stored users and their tokens, and the seeding of the stores |
//! | `calls.rs` | the measured calls |
//! | `pgbench.rs`, `redis_benchmark.rs` | the stores' own benchmark programs |

mod calls;
pub(crate) mod growth;
pub(crate) mod import;
mod pgbench;
mod processes;
pub(crate) mod rates;
mod redis_benchmark;
pub(crate) mod roles;
mod seed;
mod servers;
pub(crate) mod sqlite;
mod users;
