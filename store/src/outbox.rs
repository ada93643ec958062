//! Outbox: side effects outside the database, which are neither lost nor done without the change that they follow from.
//!
//! A [`Message`] is a row that is written in the transaction of the change ([`put`]). A [`Relay`] delivers it afterwards:
//! at least once, in order for each key, with growing delays after failures. So the receiver must be idempotent. What has failed
//! too often is a dead letter: it stays in the table with its last error, and does not hold up later messages of its key.
//!
//! Several instances relay from one database: a message is leased to one of them at a time. What an instance had leased when it was
//! killed is delivered when the lease has ended.
//!
//! Within a key, messages are in the order of their transactions, if each writes its message after a row that all transactions
//! of the key write, such as the row that the key names.
//!
//! A service lists [`migration`] among its migrations, and runs one relay for each instance.

mod relay;
mod store;

use drystone_mesh::{clock::Timestamp, module::Migration, time::to_micros};
use uuid::Uuid;

pub use self::relay::{Deliver, DeliveryError, Relay, RelayMetrics};
use crate::{Transaction, run};

/// The migration with the table of messages, as the version of a service's schema.
#[must_use]
pub const fn migration(version: i64) -> Migration {
    Migration {
        version,
        name: "outbox",
        sqlite: include_str!("outbox/sqlite.sql"),
        postgres: include_str!("outbox/postgres.sql"),
    }
}

/// A message to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id, by which a receiver can recognize it.
    pub id: Uuid,
    /// What it is, so that the relay knows what to do with it.
    pub kind: String,
    /// Messages of one key are delivered in order.
    pub key: String,
    /// The content.
    pub payload: Vec<u8>,
    /// When it was written.
    pub created_at: Timestamp,
}

/// What has become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was delivered.
    Delivered,
    /// It will be delivered.
    Pending,
    /// It is a dead letter.
    GivenUp,
}

/// Writes a message in the transaction of the change that it follows from. It is delivered after the commit:
/// [`Relay::wake`] makes that soon. Earlier messages of its key that wait for their next attempt do not hold it up: they are tried
/// at once.
///
/// # Errors
/// The database fails.
pub async fn put(transaction: &mut Transaction, message: &Message) -> sqlx::Result<()> {
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "UPDATE outbox
             SET next_attempt_at = $2
             WHERE key = $1 AND dead_at IS NULL AND lease IS NULL AND next_attempt_at > $2",
        )
        .bind(message.key.as_str())
        .bind(to_micros(message.created_at))
        .execute(connection)
        .await
        .map(drop)?;
    });
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "INSERT INTO outbox (id, kind, key, payload, created_at, next_attempt_at)
             VALUES ($1, $2, $3, $4, $5, $5)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(message.id)
        .bind(message.kind.as_str())
        .bind(message.key.as_str())
        .bind(message.payload.as_slice())
        .bind(to_micros(message.created_at))
        .execute(connection)
        .await
        .map(drop)
    })
}

#[cfg(test)]
mod tests;
