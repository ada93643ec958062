//! The store of messages, deliveries, inboxes and preferences; all SQL is here and in `store/`.

mod deliveries;
mod inbox;
mod messages;
mod queue;

use drystone_mesh::clock::Timestamp;
use drystone_store::{Db, Migration, migration, run, sealing};
use uuid::Uuid;

pub use self::deliveries::DeliveryFilter;
pub use self::queue::{Backlog, Outcome};
use crate::Error;

/// The migrations of the schema.
pub const MIGRATIONS: &[Migration] = &[migration!("0001", "notification"), sealing::migration(2)];

/// How many rows one statement removes: bounded, so that writers do not wait long for it.
const DELETE_BATCH: i64 = 500;

/// The store. Clones share the database.
#[derive(Debug, Clone)]
pub struct NotificationStore {
    db: Db,
}

impl NotificationStore {
    /// A store in a database that was opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The database.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Removes everything about a user, a number of rows at a time.
    pub async fn forget(&self, user: Uuid) -> Result<(), Error> {
        let statements = [
            "DELETE FROM message WHERE id IN (SELECT id FROM message WHERE user_id = $1 LIMIT $2)",
            "DELETE FROM inbox_message
             WHERE user_id = $1 AND id IN (SELECT id FROM inbox_message WHERE user_id = $1 LIMIT $2)",
            "DELETE FROM opt_out
             WHERE user_id = $1 AND category IN (SELECT category FROM opt_out WHERE user_id = $1 LIMIT $2)",
        ];
        for statement in statements {
            loop {
                let deleted = run!(self.db.writer(), |db| {
                    sqlx::query(statement).bind(user).bind(DELETE_BATCH).execute(db).await?.rows_affected()
                });
                if deleted == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Removes messages and their deliveries from before this time, and messages in inboxes. Returns how many.
    pub async fn remove_older(&self, messages: Timestamp, inbox: Timestamp) -> Result<u64, Error> {
        let statements = [
            (
                "DELETE FROM message
                 WHERE id IN (SELECT id FROM message WHERE created_at < $1 ORDER BY created_at LIMIT $2)",
                messages,
            ),
            (
                "DELETE FROM inbox_message
                 WHERE (user_id, id) IN (
                     SELECT user_id, id FROM inbox_message WHERE created_at < $1 ORDER BY created_at LIMIT $2
                 )",
                inbox,
            ),
        ];
        let mut total = 0;
        for (statement, before) in statements {
            loop {
                let deleted = run!(self.db.writer(), |db| {
                    let query = sqlx::query(statement).bind(drystone_mesh::time::to_micros(before));
                    query.bind(DELETE_BATCH).execute(db).await?.rows_affected()
                });
                total += deleted;
                if deleted < DELETE_BATCH.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(total)
    }
}
