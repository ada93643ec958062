//! Inboxes and preferences.

use std::collections::BTreeSet;

use drystone_mesh::{
    clock::Timestamp,
    page::Page,
    time::{from_micros, to_micros},
};
use drystone_store::{Transaction, places, run};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::NotificationStore;
use crate::{
    Error,
    channel::Channel,
    inbox::{InboxMessage, MAX_MESSAGES},
    message::{InboxText, NewMessage},
};

/// The columns of a message in an inbox, in the order of [`Row`].
macro_rules! columns {
    () => {
        "id, template, category, title, body, created_at, read_at"
    };
}

type Row = (Uuid, String, String, String, String, i64, Option<i64>);

/// How many messages beyond the maximum one insertion removes.
const TRIM: i64 = 100;

impl NotificationStore {
    /// The messages of a page of the user's inbox, newest first, plus one more if there is a next page.
    pub async fn inbox(&self, user: Uuid, is_unread_only: bool, page: &Page) -> Result<Vec<InboxMessage>, Error> {
        let unread = if is_unread_only { " AND read_at IS NULL" } else { "" };
        let sql = format!(
            concat!(
                "SELECT ",
                columns!(),
                " FROM inbox_message WHERE user_id = $1 AND id < $2{} ORDER BY id DESC LIMIT $3"
            ),
            unread
        );
        let rows: Vec<Row> = run!(self.db.reader(), |db| {
            sqlx::query_as(AssertSqlSafe(sql))
                .bind(user)
                .bind(page.after.unwrap_or(Uuid::max()))
                .bind(page.limit())
                .fetch_all(db)
                .await?
        });
        Ok(rows.into_iter().map(read).collect())
    }

    /// The messages of the user's inbox after this id, oldest first.
    pub async fn inbox_after(&self, user: Uuid, after: Uuid) -> Result<Vec<InboxMessage>, Error> {
        let rows: Vec<Row> = run!(self.db.reader(), |db| {
            sqlx::query_as(concat!(
                "SELECT ",
                columns!(),
                " FROM inbox_message WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3"
            ))
            .bind(user)
            .bind(after)
            .bind(i64::from(MAX_MESSAGES) + TRIM)
            .fetch_all(db)
            .await?
        });
        Ok(rows.into_iter().map(read).collect())
    }

    /// How many messages of the user's inbox are unread.
    pub async fn unread(&self, user: Uuid) -> Result<i64, Error> {
        Ok(run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT COUNT(*) FROM inbox_message WHERE user_id = $1 AND read_at IS NULL")
                .bind(user)
                .fetch_one(db)
                .await?
        }))
    }

    /// The users whose inboxes have messages since this time.
    pub async fn users_with_messages_since(&self, time: Timestamp, limit: u32) -> Result<Vec<Uuid>, Error> {
        Ok(run!(self.db.reader(), |db| {
            sqlx::query_scalar(
                "SELECT user_id FROM inbox_message WHERE created_at >= $1 ORDER BY created_at DESC LIMIT $2",
            )
            .bind(to_micros(time))
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?
        }))
    }

    /// Marks messages of the user's inbox as read: these, or all. Returns how many were unread.
    pub async fn mark_read(&self, user: Uuid, ids: Option<&[Uuid]>, now: Timestamp) -> Result<u64, Error> {
        let which = match ids {
            None => String::new(),
            Some([]) => return Ok(0),
            Some(ids) => format!(" AND id IN ({})", places(3, ids.len())),
        };
        let sql = format!("UPDATE inbox_message SET read_at = $2 WHERE user_id = $1 AND read_at IS NULL{which}");
        Ok(run!(self.db.writer(), |db| {
            let mut query = sqlx::query(AssertSqlSafe(sql)).bind(user).bind(to_micros(now));
            for id in ids.unwrap_or_default() {
                query = query.bind(*id);
            }
            query.execute(db).await?.rows_affected()
        }))
    }

    /// What the user does not want to receive.
    pub async fn opt_outs(&self, user: Uuid) -> Result<BTreeSet<(String, Channel)>, Error> {
        let rows: Vec<(String, i64)> = run!(self.db.reader(), |db| {
            sqlx::query_as("SELECT category, channel FROM opt_out WHERE user_id = $1").bind(user).fetch_all(db).await?
        });
        let known = rows.into_iter().filter_map(|(category, channel)| Some((category, Channel::from_number(channel)?)));
        Ok(known.collect())
    }

    /// Changes what the user wants to receive.
    pub async fn set_preference(
        &self,
        user: Uuid,
        category: &str,
        channel: Channel,
        is_enabled: bool,
    ) -> Result<(), Error> {
        let sql = if is_enabled {
            "DELETE FROM opt_out WHERE user_id = $1 AND category = $2 AND channel = $3"
        } else {
            "INSERT INTO opt_out (user_id, category, channel) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
        };
        run!(self.db.writer(), |db| {
            sqlx::query(sql).bind(user).bind(category).bind(channel.number()).execute(db).await?;
        });
        Ok(())
    }
}

/// Adds a message to an inbox, and removes those beyond the maximum.
pub(super) async fn insert(
    transaction: &mut Transaction,
    user: Uuid,
    message: &NewMessage,
    text: &InboxText,
    now: Timestamp,
) -> Result<(), Error> {
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "INSERT INTO inbox_message (user_id, id, template, category, title, body, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(user)
        .bind(drystone_mesh::id::v7_at(now))
        .bind(message.template.as_str())
        .bind(text.category.as_str())
        .bind(text.title.as_str())
        .bind(text.body.as_str())
        .bind(to_micros(now))
        .execute(connection)
        .await?;
    });
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "DELETE FROM inbox_message
             WHERE user_id = $1
                 AND id IN (SELECT id FROM inbox_message WHERE user_id = $1 ORDER BY id DESC LIMIT $2 OFFSET $3)",
        )
        .bind(user)
        .bind(TRIM)
        .bind(i64::from(MAX_MESSAGES))
        .execute(connection)
        .await?;
    });
    Ok(())
}

fn read((id, template, category, title, body, created_at, read_at): Row) -> InboxMessage {
    InboxMessage {
        id,
        template,
        category,
        title,
        body,
        created_at: from_micros(created_at),
        read_at: read_at.map(from_micros),
    }
}
