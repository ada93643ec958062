//! Databases: opening them, bringing their schema up to date, and what every list and every row has in common.
//!
//! A service owns one database: an SQLite file, or a schema in a PostgreSQL database. It keeps its steps of schema in
//! `migrations/{postgres,sqlite}/0001_name.sql`, lists them as [`Migration`]s, and opens its [`Place`] with
//! [`Db::open`], which brings it up to date:
//!
//! ```
//! use drystone_mesh::store::{Db, Migration, run};
//!
//! const MIGRATIONS: &[Migration] = &[Migration {
//!     version: 1,
//!     name: "note",
//!     sqlite: "CREATE TABLE note (id BLOB PRIMARY KEY, text TEXT NOT NULL)",
//!     postgres: "CREATE TABLE note (id UUID PRIMARY KEY, text TEXT NOT NULL)",
//! }];
//!
//! # async fn example(directory: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
//! let db = Db::open(&directory.join("notes.db"), MIGRATIONS).await?;
//! let notes: i64 = run!(db.reader(), |db| sqlx::query_scalar("SELECT COUNT(*) FROM note").fetch_one(db).await?);
//! # Ok(())
//! # }
//! ```
//!
//! Queries have one text for both engines, which [`run!`] binds natively on each. Only the schemas differ:
//!
//! | value | Rust | SQLite | PostgreSQL |
//! |---|---|---|---|
//! | an id | [`uuid::Uuid`] | `BLOB` | `UUID` |
//! | a moment, in microseconds ([`time`]) | `i64` | `INTEGER` | `BIGINT` |
//! | a number | `i64` | `INTEGER` | `BIGINT` |
//! | a text | `&str`, `String` | `TEXT` | `TEXT` |
//! | bytes | `&[u8]`, `Vec<u8>` | `BLOB` | `BYTEA` |
//! | a document | `sqlx::types::Json` | `TEXT` | `JSONB` |
//!
//! What is fleeting and hot may live in [`redis`] instead.

mod address;
mod db;
pub mod etag;
mod failure;
mod file;
mod migration;
mod open_error;
pub mod page;
mod place;
mod postgres;
mod probe;
pub mod redis;
mod sqlite;
pub mod time;
mod transaction;

pub use address::{Address, AddressError, ServerUrl};
pub use db::{Db, Either};
pub use failure::Failure;
#[doc(hidden)]
pub use migration::version;
pub use migration::{Migration, SchemaState, schema_state};
pub use open_error::OpenError;
pub use place::{Place, PoolConfig, Server, Settings};
pub use postgres::PostgresPool;
pub use probe::probe;
pub use transaction::Transaction;

pub use crate::{__migration as migration, __run_on_either as run};

#[cfg(test)]
mod tests;
