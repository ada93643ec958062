//! The statements of lists.

use std::fmt::Write as _;

use drystone_mesh::{clock::Timestamp, time::to_micros};
use uuid::Uuid;

use super::{super::accounts::columns, ListOrder, ListPage, ListQuery, StatusFilter};
use crate::{Status, search};

/// An id is generated when an account is created, or as long before as a registration can be resumed: far less than this. Ranges of
/// creation times are looked up by ids.
const MAX_ID_AGE_MICROS: i64 = 6 * 3_600 * 1_000_000;

/// How many rows of an index one page looks at, if few of them may pass the other conditions.
const MAX_VISITED: i64 = 10_000;

/// A value of a statement.
pub(super) enum Bind {
    Id(Uuid),
    Number(i64),
    Text(String),
}

impl From<Uuid> for Bind {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}

impl From<i64> for Bind {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Bind {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// The index that the rows of a list are found by, and in whose order they are.
struct Index {
    /// The table that it is of.
    table: &'static str,
    /// That table with the account of each row, and how they are joined: in this order.
    tables: &'static str,
    joined: &'static str,
    /// The text and the id of the position of a row.
    text: &'static str,
    id: &'static str,
    order: Order,
}

/// Which of the two orders an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Id,
    Text,
    TextAndId,
}

const IDS: Index =
    Index { table: "account", tables: "account", joined: "1 = 1", text: "''", id: "id", order: Order::Id };
/// The holders of a role.
const HOLDERS: Index = Index {
    table: "role_grant",
    tables: "role_grant CROSS JOIN account",
    joined: "account.id = role_grant.user_id",
    text: "''",
    id: "user_id",
    order: Order::Id,
};
const EMAILS: Index =
    Index { table: "account", tables: "account", joined: "1 = 1", text: "email_key", id: "id", order: Order::Text };
const WORDS: Index = Index {
    table: "account_word",
    tables: "account_word CROSS JOIN account",
    joined: "account.id = account_word.user_id",
    text: "word",
    id: "user_id",
    order: Order::TextAndId,
};

impl Index {
    fn of(query: &ListQuery) -> &'static Self {
        match query.order {
            _ if !query.prefixes.is_empty() => &WORDS,
            ListOrder::Email => &EMAILS,
            ListOrder::CreateTime if query.role.is_some() => &HOLDERS,
            ListOrder::CreateTime => &IDS,
        }
    }
}

/// A statement in the making.
pub(super) struct Select {
    pub(super) sql: String,
    pub(super) binds: Vec<Bind>,
    now: i64,
}

impl Select {
    /// The accounts of a page, up to `end`.
    pub(super) fn accounts(query: &ListQuery, page: &ListPage, end: Option<&(String, Uuid)>, now: Timestamp) -> Self {
        let index = Index::of(query);
        let Index { tables, joined, text, .. } = index;
        let mut select =
            Self::from(format!(concat!("SELECT {}, ", columns!(), " FROM {} WHERE {}"), text, tables, joined), now);
        select.range(index, query, page.after.as_ref());
        if let Some(end) = end {
            select.compare(index, if query.is_descending { " >= " } else { " <= " }, end);
        }
        select.first_word_only(query);
        select.filter(query);
        select.order(index, query);
        select.bind(page.limit());
        select
    }

    /// The position of the last row that a page may look at.
    pub(super) fn positions(query: &ListQuery, page: &ListPage, now: Timestamp) -> Self {
        let index = Index::of(query);
        let Index { table, text, id, .. } = index;
        let mut select = Self::from(format!("SELECT {text}, {id} FROM {table} WHERE 1 = 1"), now);
        select.range(index, query, page.after.as_ref());
        select.order(index, query);
        let _ = write!(select.sql, "1 OFFSET {}", MAX_VISITED - 1);
        select
    }

    fn from(sql: String, now: Timestamp) -> Self {
        Self { sql, binds: Vec::new(), now: to_micros(now) }
    }

    /// The part of the index that the list has.
    fn range(&mut self, index: &Index, query: &ListQuery, after: Option<&(String, Uuid)>) {
        match index.order {
            Order::Id => {
                if let Some(role) = &query.role {
                    self.and("role", " = ", role.to_string());
                }
                if let Some(from) = query.created_from.map(earliest_id) {
                    self.and(index.id, " >= ", from);
                }
                if let Some(before) = query.created_before.and_then(latest_id) {
                    self.and(index.id, " < ", before);
                }
            }
            Order::Text | Order::TextAndId => {
                if let Some(prefix) = query.prefixes.first().or(query.email_prefix.as_ref()) {
                    self.prefix(index.text, prefix);
                }
            }
        }
        if let Some(after) = after {
            self.compare(index, if query.is_descending { " < " } else { " > " }, after);
        }
    }

    fn prefix(&mut self, column: &str, prefix: &str) {
        self.and(column, " >= ", prefix.to_owned());
        self.and(column, " < ", search::after_prefix(prefix));
    }

    fn compare(&mut self, index: &Index, operator: &str, (text, id): &(String, Uuid)) {
        match index.order {
            Order::Id => self.and(index.id, operator, *id),
            Order::Text => self.and(index.text, operator, text.clone()),
            Order::TextAndId => {
                let _ = write!(self.sql, " AND ({}, {}){operator}(", index.text, index.id);
                self.bind(text.clone());
                self.sql.push_str(", ");
                self.bind(*id);
                self.sql.push(')');
            }
        }
    }

    /// An account of which several words match has the place of the first of them; and its other words match the other prefixes. Each
    /// is one lookup in an index for each row: as `EXISTS` PostgreSQL may read the whole table.
    fn first_word_only(&mut self, query: &ListQuery) {
        let Some((first, others)) = query.prefixes.split_first() else { return };
        self.sql.push_str(" AND word = ");
        self.first_word_from(first);
        for other in others {
            self.sql.push_str(" AND ");
            self.first_word_from(other);
            self.sql.push_str(" < ");
            self.bind(search::after_prefix(other));
        }
    }

    fn first_word_from(&mut self, prefix: &str) {
        self.sql.push_str(
            "(
                 SELECT min(other.word)
                 FROM account_word AS other
                 WHERE other.user_id = account_word.user_id AND other.word >= ",
        );
        self.bind(prefix.to_owned());
        self.sql.push(')');
    }

    fn not_expired(&mut self) {
        let now = self.now;
        self.sql.push_str(" AND (expires_at IS NULL OR expires_at > ");
        self.bind(now);
        self.sql.push(')');
    }

    fn filter(&mut self, query: &ListQuery) {
        // As literals: PostgreSQL takes a bound value to exclude as many accounts as an average status has, which may be all of them, and
        // would read the whole table for the few that are left.
        let _ = match query.status {
            StatusFilter::NotDeleted => write!(self.sql, " AND status <> {}", Status::Deleted.to_column()),
            StatusFilter::Only(Status::Active) => write!(self.sql, " AND status = {}", Status::Active.to_column()),
            // With the condition of the index of those that are not active.
            StatusFilter::Only(status) => write!(self.sql, " AND status <> 1 AND status = {}", status.to_column()),
        };
        match &query.role {
            // Their index has the role.
            Some(_) if Index::of(query).order == Order::Id => self.not_expired(),
            Some(role) => {
                self.sql.push_str(
                    " AND EXISTS (SELECT 1 FROM role_grant WHERE role_grant.user_id = account.id AND role = ",
                );
                self.bind(role.to_string());
                self.not_expired();
                self.sql.push(')');
            }
            None => {}
        }
        if let Some(email) = &query.email {
            self.and("email_key", " = ", email.clone());
        }
        if let Some(prefix) = &query.email_prefix {
            self.prefix("email_key", prefix);
        }
        if let Some(from) = query.created_from {
            self.and("created_at", " >= ", to_micros(from));
        }
        if let Some(before) = query.created_before {
            self.and("created_at", " < ", to_micros(before));
        }
    }

    fn and(&mut self, column: &str, operator: &str, value: impl Into<Bind>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(column);
        self.sql.push_str(operator);
        self.bind(value);
    }

    fn bind(&mut self, value: impl Into<Bind>) {
        self.binds.push(value.into());
        let _ = write!(self.sql, "${}", self.binds.len());
    }

    fn order(&mut self, index: &Index, query: &ListQuery) {
        let direction = if query.is_descending { " DESC" } else { "" };
        let Index { text, id, .. } = index;
        let _ = match index.order {
            Order::Id => write!(self.sql, " ORDER BY {id}{direction} LIMIT "),
            Order::Text => write!(self.sql, " ORDER BY {text}{direction} LIMIT "),
            Order::TextAndId => write!(self.sql, " ORDER BY {text}{direction}, {id}{direction} LIMIT "),
        };
    }
}

/// The first id that an account of this time can have.
fn earliest_id(time: Timestamp) -> Uuid {
    id_at(to_micros(time).saturating_sub(MAX_ID_AGE_MICROS))
}

/// The first id that only later accounts have. `None` for times that no id has.
fn latest_id(time: Timestamp) -> Option<Uuid> {
    let micros = to_micros(time).saturating_add(MAX_ID_AGE_MICROS);
    (micros > 0).then(|| id_at(micros))
}

/// The first id of version 7 that could be generated at this time.
fn id_at(micros: i64) -> Uuid {
    let millis = u128::try_from(micros.max(0) / 1000).unwrap_or_default();
    Uuid::from_u128(millis.min((1 << 48) - 1) << 80)
}

#[cfg(test)]
mod tests {
    use drystone_mesh::time::from_micros;

    use super::*;

    #[test]
    fn ids_of_later_times_are_greater() {
        let at = |micros: i64| drystone_mesh::id::v7_at(from_micros(micros));
        let time = 1_790_000_000_000_000;
        assert!(id_at(time) <= at(time));
        assert!(at(time - 1000) < id_at(time));
        assert_eq!(id_at(-5), Uuid::nil());
    }
}
