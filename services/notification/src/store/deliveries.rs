//! Reading deliveries.

use std::fmt::Write as _;

use drystone_mesh::{clock::Timestamp, page::Page, time::from_micros, time::to_micros};
use drystone_store::{Transaction, run};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::NotificationStore;
use crate::{
    Error,
    channel::Channel,
    message::{Delivery, State},
};

/// The columns of a delivery, in the order of [`Row`].
macro_rules! columns {
    () => {
        "delivery.id, message_id, template, delivery.user_id, channel, destination, state, attempts, next_attempt_at, last_error,
         delivery.created_at, finished_at"
    };
}

const SELECT: &str = concat!("SELECT ", columns!(), " FROM delivery JOIN message ON message.id = delivery.message_id ");

type Row = (Uuid, Uuid, String, Option<Uuid>, i64, String, i64, i64, i64, String, i64, Option<i64>);

/// Which deliveries are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// In this state alone.
    pub state: Option<State>,
    /// Of this user alone.
    pub user_id: Option<Uuid>,
}

impl NotificationStore {
    /// The delivery with this id.
    pub async fn delivery(&self, id: Uuid) -> Result<Option<Delivery>, Error> {
        let row: Option<Row> = run!(self.db.reader(), |db| {
            sqlx::query_as(AssertSqlSafe(format!("{SELECT} WHERE delivery.id = $1")))
                .bind(id)
                .fetch_optional(db)
                .await?
        });
        Ok(row.map(read))
    }

    /// The deliveries of a page, newest first, plus one more if there is a next page.
    pub async fn deliveries(&self, filter: DeliveryFilter, page: &Page) -> Result<Vec<Delivery>, Error> {
        // The maximal UUID is greater than every UUID of version 7.
        let after = page.after.unwrap_or(Uuid::max());
        let mut conditions = String::new();
        let mut number = 2;
        for (is_set, column) in [(filter.state.is_some(), "state"), (filter.user_id.is_some(), "delivery.user_id")] {
            if is_set {
                number += 1;
                let _ = write!(conditions, " AND {column} = ${number}");
            }
        }
        let sql = format!("{SELECT} WHERE delivery.id < $1{conditions} ORDER BY delivery.id DESC LIMIT $2");
        let rows: Vec<Row> = run!(self.db.reader(), |db| {
            let mut query = sqlx::query_as(AssertSqlSafe(sql)).bind(after).bind(page.limit());
            if let Some(state) = filter.state {
                query = query.bind(state.number());
            }
            if let Some(user) = filter.user_id {
                query = query.bind(user);
            }
            query.fetch_all(db).await?
        });
        Ok(rows.into_iter().map(read).collect())
    }

    /// Has a delivery attempted again that was given up. Returns whether it was: it was not if it is in another state, its message
    /// has expired, or its parameters are no longer there.
    pub async fn requeue(&self, id: Uuid, now: Timestamp) -> Result<bool, Error> {
        Ok(run!(self.db.writer(), |db| {
            sqlx::query(
                "UPDATE delivery
                 SET state = 1, attempts = 0, next_attempt_at = $2, finished_at = NULL
                 WHERE id = $1 AND state = 3
                     AND EXISTS (
                         SELECT 1
                         FROM message
                         WHERE message.id = delivery.message_id AND expires_at > $2 AND parameters IS NOT NULL
                     )",
            )
            .bind(id)
            .bind(to_micros(now))
            .execute(db)
            .await?
            .rows_affected()
                > 0
        }))
    }
}

/// The deliveries of a message, read in this transaction.
pub(super) async fn of_message(transaction: &mut Transaction, message: Uuid) -> Result<Vec<Delivery>, Error> {
    let sql = format!("{SELECT} WHERE message_id = $1 ORDER BY channel, delivery.id");
    let rows: Vec<Row> = run!(transaction.connection(), |connection| {
        sqlx::query_as(AssertSqlSafe(sql)).bind(message).fetch_all(connection).await?
    });
    Ok(rows.into_iter().map(read).collect())
}

fn read(row: Row) -> Delivery {
    let (id, message_id, template, user_id, channel, destination, state, attempts, next, last_error, created, finished) =
        row;
    Delivery {
        id,
        message_id,
        template,
        user_id,
        channel: Channel::from_number(channel),
        destination,
        state: State::from_number(state),
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        next_attempt_at: from_micros(next),
        last_error,
        created_at: from_micros(created),
        finished_at: finished.map(from_micros),
    }
}
