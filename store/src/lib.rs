//! Storage for services: SQL on two engines, migrations, an outbox, encryption at rest, Redis, and rate limits in Redis.
//!
//! A service owns one database: an SQLite file, or a schema in a PostgreSQL database. It keeps its migrations in
//! `migrations/{postgres,sqlite}/0001_name.sql`, lists them as [`Migration`]s, and opens its [`Location`] with
//! [`Db::open`], which applies the missing ones:
//!
//! ```
//! use drystone_store::{Db, Migration, run};
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
//! Queries are the same SQL for both engines, and [`run!`] binds their parameters natively. Only the schemas differ:
//!
//! | value | Rust | SQLite | PostgreSQL |
//! |---|---|---|---|
//! | an id | [`uuid::Uuid`] | `BLOB` | `UUID` |
//! | a timestamp, in microseconds ([`drystone_mesh::time`]) | `i64` | `INTEGER` | `BIGINT` |
//! | a number | `i64` | `INTEGER` | `BIGINT` |
//! | a text | `&str`, `String` | `TEXT` | `TEXT` |
//! | bytes | `&[u8]`, `Vec<u8>` | `BLOB` | `BYTEA` |
//! | JSON | `sqlx::types::Json` | `TEXT` | `JSONB` |
//!
//! Short-lived data with frequent writes can be stored in [`redis`] instead.
//!
//! Side effects outside the database, such as calls that must follow a change, are messages in an [`outbox`].
//!
//! A creation can be repeated safely with a [`request_id`].
//!
//! Values that must stay secret even from a reader of the database are sealed: see [`sealing`].
//!
//! A service gets its database from its context: `use drystone_store::ContextExt`, then `context.database()`.

mod address;
mod config;
mod context;
mod db;
mod failure;
mod file;
pub mod limit;
mod location;
mod migration;
mod open_error;
pub mod outbox;
mod postgres;
mod probe;
pub mod redis;
pub mod request_id;
pub mod sealing;
mod size;
mod sqlite;
mod transaction;
mod values;

pub use drystone_mesh::{migration, module::Migration};

pub use address::{Address, AddressError, ServerUrl};
pub use config::{DatabaseConfig, PoolConfig};
pub use context::{ContextExt, no_master_key};
pub use db::{Db, Either};
pub use failure::{Error, Failure, Result, to_mesh_error};
pub use location::{Location, PostgresLocation};
pub use migration::{SchemaState, schema_state};
pub use open_error::OpenError;
pub use postgres::PostgresPool;
pub use probe::probe;
pub use size::{Size, watch_size};
pub use transaction::Transaction;
pub use values::{places, values};

#[cfg(test)]
mod tests;
