//! Lists of accounts. Each order has an index, so that a page costs the same wherever it is.

use std::fmt::Write as _;

use drystone_mesh::{clock::Timestamp, page::Page, time::to_micros};
use drystone_store::run;
use sqlx::{AssertSqlSafe, types::Json};
use uuid::Uuid;

use super::{
    UserStore,
    accounts::{columns, read_account},
    profile::StoredProfile,
};
use crate::{Account, Error, Status, role::RoleName, search};

/// An id is generated when an account is created, or as long before as a registration can be resumed: far less than this. Ranges of
/// creation times are looked up by ids.
const MAX_ID_AGE_MICROS: i64 = 48 * 3_600 * 1_000_000;

/// A page of accounts. The text of its position is what the accounts are ordered by, if that is not the id.
pub type ListPage = Page<(String, Uuid)>;

/// Which accounts a list has, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// By status.
    pub status: StatusFilter,
    /// Those that have this role, granted and not expired.
    pub role: Option<RoleName>,
    /// Those whose e-mail addresses, in lower case, begin with this.
    pub email_prefix: Option<String>,
    /// Those with this e-mail address, in lower case.
    pub email: Option<String>,
    /// Those that were created then or later.
    pub created_from: Option<Timestamp>,
    /// Those that were created before.
    pub created_before: Option<Timestamp>,
    /// Those with words that begin with each of these, ordered by what the first one matches. Without any, by `order`.
    pub prefixes: Vec<String>,
    /// The order.
    pub order: ListOrder,
    /// Whether the order is reversed.
    pub is_descending: bool,
}

/// Accounts by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StatusFilter {
    /// All but deleted ones.
    #[default]
    NotDeleted,
    /// Those with this status.
    Only(Status),
}

/// The order of accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListOrder {
    /// By age: by id.
    #[default]
    CreateTime,
    /// By e-mail address in lower case.
    Email,
}

/// The position, and the columns of an account.
type ListRow = (
    String,
    Uuid,
    String,
    String,
    Json<StoredProfile>,
    Option<i64>,
    i16,
    Option<i64>,
    Option<i64>,
    i64,
    i64,
    i64,
    Option<String>,
);

impl UserStore {
    /// The accounts of a page with their positions, plus one more if there is a next page.
    pub async fn list(
        &self,
        query: &ListQuery,
        page: &ListPage,
        now: Timestamp,
    ) -> Result<Vec<(String, Account)>, Error> {
        let Select { sql, binds, .. } = Select::new(query, page, now);
        let rows = run!(self.db.reader(), |db| {
            let mut query = sqlx::query_as::<_, ListRow>(AssertSqlSafe(sql));
            for bind in binds {
                query = match bind {
                    Bind::Id(id) => query.bind(id),
                    Bind::Number(number) => query.bind(number),
                    Bind::Text(text) => query.bind(text),
                };
            }
            query.fetch_all(db).await?
        });
        Ok(rows.into_iter().map(read_row).collect())
    }
}

fn read_row(row: ListRow) -> (String, Account) {
    let (position, id, email, name, profile, telegram, status, deleted, purge, version, created, updated, grants) = row;
    let row = (id, email, name, profile, telegram, status, deleted, purge, version, created, updated, grants);
    (position, read_account(row))
}

enum Bind {
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

/// A statement in the making.
struct Select {
    sql: String,
    binds: Vec<Bind>,
    now: i64,
}

impl Select {
    fn new(query: &ListQuery, page: &ListPage, now: Timestamp) -> Self {
        let mut select = Self { sql: String::new(), binds: Vec::new(), now: to_micros(now) };
        if let Some(prefix) = query.prefixes.first() {
            select.by_words(query, prefix, page);
        } else {
            match query.order {
                ListOrder::CreateTime => select.by_id(query, page),
                ListOrder::Email => select.by_email(query, page),
            }
        }
        select
    }

    /// The accounts with a role are found by the index of its holders, in the same order.
    fn by_id(&mut self, query: &ListQuery, page: &ListPage) {
        let id = if let Some(role) = &query.role {
            self.from(
                "''",
                "role_grant CROSS JOIN account",
                "account.id = role_grant.user_id AND role = ",
                role.to_string(),
            );
            self.and_not_expired();
            "role_grant.user_id"
        } else {
            self.sql.push_str(concat!("SELECT '', ", columns!(), " FROM account WHERE 1 = 1"));
            "id"
        };
        if let Some((_, after)) = page.after {
            self.and(id, if query.is_descending { " < " } else { " > " }, after);
        }
        if let Some(from) = query.created_from {
            self.and(id, " >= ", id_at(to_micros(from).saturating_sub(MAX_ID_AGE_MICROS)));
        }
        if let Some(before) = query.created_before {
            self.and(id, " < ", id_at(to_micros(before).saturating_add(MAX_ID_AGE_MICROS)));
        }
        self.filter(&ListQuery { role: None, ..query.clone() });
        self.end(id, query.is_descending, page);
    }

    fn by_email(&mut self, query: &ListQuery, page: &ListPage) {
        self.sql.push_str(concat!("SELECT email_key, ", columns!(), " FROM account WHERE 1 = 1"));
        if let Some((after, _)) = &page.after {
            self.and("email_key", if query.is_descending { " < " } else { " > " }, after.clone());
        }
        self.filter(query);
        self.end("email_key", query.is_descending, page);
    }

    /// An account of which several words match has the place of the first of them.
    fn by_words(&mut self, query: &ListQuery, prefix: &str, page: &ListPage) {
        self.from(
            "word",
            "account_word CROSS JOIN account",
            "account.id = account_word.user_id AND word >= ",
            prefix.to_owned(),
        );
        self.and("word", " < ", search::after_prefix(prefix));
        self.sql.push_str(
            " AND NOT EXISTS (
                 SELECT 1
                 FROM account_word AS earlier
                 WHERE earlier.user_id = account_word.user_id AND earlier.word < account_word.word AND earlier.word >= ",
        );
        self.bind(prefix.to_owned());
        self.sql.push(')');
        if let Some((word, id)) = &page.after {
            self.sql.push_str(" AND (word, account_word.user_id) > (");
            self.bind(word.clone());
            self.sql.push_str(", ");
            self.bind(*id);
            self.sql.push(')');
        }
        for other in query.prefixes.iter().skip(1) {
            self.sql.push_str(
                " AND EXISTS (
                     SELECT 1
                     FROM account_word AS other
                     WHERE other.user_id = account_word.user_id AND other.word >= ",
            );
            self.bind(other.clone());
            self.sql.push_str(" AND other.word < ");
            self.bind(search::after_prefix(other));
            self.sql.push(')');
        }
        self.filter(query);
        self.end("word, account_word.user_id", false, page);
    }

    fn from(&mut self, position: &str, tables: &str, condition: &str, value: String) {
        self.sql = format!(concat!("SELECT {}, ", columns!(), " FROM {} WHERE {}"), position, tables, condition);
        self.bind(value);
    }

    fn and_not_expired(&mut self) {
        let now = self.now;
        self.sql.push_str(" AND (expires_at IS NULL OR expires_at > ");
        self.bind(now);
        self.sql.push(')');
    }

    fn filter(&mut self, query: &ListQuery) {
        match query.status {
            // As in the condition of the index of others.
            StatusFilter::NotDeleted => self.and("status", " <> ", i64::from(Status::Deleted.to_column())),
            StatusFilter::Only(status) => {
                if status != Status::Active {
                    self.sql.push_str(" AND status <> 1");
                }
                self.and("status", " = ", i64::from(status.to_column()));
            }
        }
        if let Some(role) = &query.role {
            self.sql
                .push_str(" AND EXISTS (SELECT 1 FROM role_grant WHERE role_grant.user_id = account.id AND role = ");
            self.bind(role.to_string());
            self.and_not_expired();
            self.sql.push(')');
        }
        if let Some(email) = &query.email {
            self.and("email_key", " = ", email.clone());
        }
        if let Some(prefix) = &query.email_prefix {
            self.and("email_key", " >= ", prefix.clone());
            self.and("email_key", " < ", search::after_prefix(prefix));
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

    fn end(&mut self, order: &str, is_descending: bool, page: &ListPage) {
        let direction = if is_descending { " DESC" } else { "" };
        let _ = write!(self.sql, " ORDER BY {order}{direction} LIMIT ");
        self.bind(page.limit());
    }
}

/// The first id of version 7 that could be generated at this time.
fn id_at(micros: i64) -> Uuid {
    let millis = u128::try_from(micros.max(0) / 1000).unwrap_or_default();
    Uuid::from_u128(millis << 80)
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
