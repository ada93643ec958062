//! Databases: opening them, bringing their schema up to date, and what every list and every row has in common.
//!
//! A service owns one database. It keeps its steps of schema in `migrations/sqlite/0001_name.sql`, lists them as
//! [`Migration`]s, and opens the file with [`Db::open`], which brings it up to date:
//!
//! ```
//! use drystone_mesh::store::{Db, Migration};
//!
//! const MIGRATIONS: &[Migration] =
//!     &[Migration { version: 1, name: "note", sql: "CREATE TABLE note (id BLOB PRIMARY KEY, text TEXT NOT NULL)" }];
//!
//! # async fn example(directory: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
//! let db = Db::open(&directory.join("notes.db"), MIGRATIONS).await?;
//! let notes: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM note").fetch_one(db.reader()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! SQL is written for PostgreSQL and SQLite alike: `$1` parameters, `TEXT`, `BIGINT` and `BLOB` columns, moments as
//! microseconds ([`time`]), ids as [`uuid::Uuid`].
//!
//! What is fleeting and hot may live in [`redis`] instead.

mod db;
pub mod etag;
mod file;
mod migration;
pub mod page;
mod probe;
pub mod redis;
pub mod time;

pub use db::Db;
pub use file::OpenError;
pub use migration::Migration;
pub use probe::probe;

#[cfg(test)]
mod tests;
