//! Lists of accounts. Each order has an index, so that a page costs the same wherever it is. Where few of the rows that an index has
//! may pass the other conditions, a page ends after a number of rows, so that no list keeps the database from others.

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
const MAX_ID_AGE_MICROS: i64 = 6 * 3_600 * 1_000_000;

/// How many rows of an index one page looks at, if few of them may pass the other conditions.
const MAX_VISITED: i64 = 10_000;

/// How many such pages are read at once: fewer than the database has connections.
pub(super) const SPARSE_LISTS: usize = 2;

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

/// The accounts of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// The accounts with their positions, plus one more than the page has if another page follows.
    pub accounts: Vec<(String, Account)>,
    /// Where the page ends if it is not full and more may follow.
    pub ends_at: Option<(String, Uuid)>,
}

impl ListQuery {
    /// Whether few of the rows that the index has may pass the other conditions.
    fn is_sparse(&self) -> bool {
        let has_status = matches!(self.status, StatusFilter::Only(_));
        let has_time = self.created_from.is_some() || self.created_before.is_some();
        let conditions = [has_status, self.role.is_some(), has_time].into_iter().filter(|has| *has).count();
        if self.email.is_some() {
            return false;
        }
        match (self.prefixes.len(), self.order) {
            (0, ListOrder::CreateTime) => conditions > 1 || self.email_prefix.is_some(),
            (0, ListOrder::Email) | (1, _) => {
                conditions > 0 || (self.prefixes.len() == 1 && self.email_prefix.is_some())
            }
            _ => true,
        }
    }
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
    /// The accounts of a page.
    pub async fn list(&self, query: &ListQuery, page: &ListPage, now: Timestamp) -> Result<Listed, Error> {
        if !query.is_sparse() {
            let accounts = self.read_list(Select::accounts(query, page, None, now)).await?;
            return Ok(Listed { accounts, ends_at: None });
        }
        let _permit = self.sparse_lists.acquire().await;
        let end = self.visited_end(query, page, now).await?;
        let accounts = self.read_list(Select::accounts(query, page, end.as_ref(), now)).await?;
        let is_full = accounts.len() > page.size as usize;
        Ok(Listed { accounts, ends_at: end.filter(|_| !is_full) })
    }

    /// The last row that a page looks at. `None` if it reaches the end of the list.
    async fn visited_end(
        &self,
        query: &ListQuery,
        page: &ListPage,
        now: Timestamp,
    ) -> Result<Option<(String, Uuid)>, Error> {
        let Select { sql, binds, .. } = Select::positions(query, page, now);
        Ok(run!(self.db.reader(), |db| {
            let mut query = sqlx::query_as::<_, (String, Uuid)>(AssertSqlSafe(sql));
            for bind in binds {
                query = match bind {
                    Bind::Id(id) => query.bind(id),
                    Bind::Number(number) => query.bind(number),
                    Bind::Text(text) => query.bind(text),
                };
            }
            query.fetch_optional(db).await?
        }))
    }

    async fn read_list(&self, Select { sql, binds, .. }: Select) -> Result<Vec<(String, Account)>, Error> {
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

/// The index that the rows of a list are found by, and in whose order they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Index {
    Ids,
    /// The holders of a role, in the order of their ids.
    Holders,
    Emails,
    Words,
}

impl Index {
    fn of(query: &ListQuery) -> Self {
        match query.order {
            _ if !query.prefixes.is_empty() => Self::Words,
            ListOrder::Email => Self::Emails,
            ListOrder::CreateTime if query.role.is_some() => Self::Holders,
            ListOrder::CreateTime => Self::Ids,
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Ids | Self::Emails => "account",
            Self::Holders => "role_grant",
            Self::Words => "account_word",
        }
    }

    /// The table, and the account of each of its rows.
    fn tables(self) -> &'static str {
        match self {
            Self::Ids | Self::Emails => "account",
            // In this order.
            Self::Holders => "role_grant CROSS JOIN account",
            Self::Words => "account_word CROSS JOIN account",
        }
    }

    fn joined(self) -> &'static str {
        match self {
            Self::Ids | Self::Emails => "1 = 1",
            Self::Holders => "account.id = role_grant.user_id",
            Self::Words => "account.id = account_word.user_id",
        }
    }

    /// The text and the id of the position of a row.
    fn position(self) -> &'static str {
        match self {
            Self::Ids => "'', id",
            Self::Holders => "'', user_id",
            Self::Emails => "email_key, id",
            Self::Words => "word, user_id",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Ids | Self::Holders => "''",
            Self::Emails => "email_key",
            Self::Words => "word",
        }
    }

    fn columns(self) -> [&'static str; 2] {
        match self {
            Self::Ids => ["id", ""],
            Self::Holders => ["user_id", ""],
            Self::Emails => ["email_key", ""],
            Self::Words => ["word", "user_id"],
        }
    }
}

/// A statement in the making.
struct Select {
    sql: String,
    binds: Vec<Bind>,
    now: i64,
}

impl Select {
    /// The accounts of a page, up to `end`.
    fn accounts(query: &ListQuery, page: &ListPage, end: Option<&(String, Uuid)>, now: Timestamp) -> Self {
        let index = Index::of(query);
        let mut select = Self::from(
            format!(
                concat!("SELECT {}, ", columns!(), " FROM {} WHERE {}"),
                index.text(),
                index.tables(),
                index.joined()
            ),
            now,
        );
        select.range(index, query, page.after.as_ref());
        if let Some(end) = end {
            select.compare(index, if query.is_descending { " >= " } else { " <= " }, end);
        }
        if index == Index::Words {
            select.first_word_only(query);
        }
        select.filter(query);
        select.order(index, query);
        select.bind(page.limit());
        select
    }

    /// The position of the last row that a page may look at.
    fn positions(query: &ListQuery, page: &ListPage, now: Timestamp) -> Self {
        let index = Index::of(query);
        let mut select = Self::from(format!("SELECT {} FROM {} WHERE 1 = 1", index.position(), index.table()), now);
        select.range(index, query, page.after.as_ref());
        select.order(index, query);
        let _ = write!(select.sql, "1 OFFSET {}", MAX_VISITED - 1);
        select
    }

    fn from(sql: String, now: Timestamp) -> Self {
        Self { sql, binds: Vec::new(), now: to_micros(now) }
    }

    /// The part of the index that the list has.
    fn range(&mut self, index: Index, query: &ListQuery, after: Option<&(String, Uuid)>) {
        let [column, _] = index.columns();
        match index {
            Index::Ids | Index::Holders => {
                if let (Index::Holders, Some(role)) = (index, &query.role) {
                    self.and("role", " = ", role.to_string());
                }
                if let Some(from) = query.created_from.map(earliest_id) {
                    self.and(column, " >= ", from);
                }
                if let Some(before) = query.created_before.and_then(latest_id) {
                    self.and(column, " < ", before);
                }
            }
            Index::Emails => {
                if let Some(prefix) = &query.email_prefix {
                    self.prefix(column, prefix);
                }
            }
            Index::Words => {
                if let Some(prefix) = query.prefixes.first() {
                    self.prefix(column, prefix);
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

    fn compare(&mut self, index: Index, operator: &str, (text, id): &(String, Uuid)) {
        let [column, second] = index.columns();
        match index {
            Index::Ids | Index::Holders => self.and(column, operator, *id),
            Index::Emails => self.and(column, operator, text.clone()),
            Index::Words => {
                let _ = write!(self.sql, " AND ({column}, {second}){operator}(");
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
        match &query.role {
            Some(_) if Index::of(query) == Index::Holders => self.not_expired(),
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

    fn order(&mut self, index: Index, query: &ListQuery) {
        let direction = if query.is_descending { " DESC" } else { "" };
        let columns: Vec<_> = index.columns().into_iter().filter(|column| !column.is_empty()).collect();
        let order: Vec<_> = columns.into_iter().map(|column| format!("{column}{direction}")).collect();
        let _ = write!(self.sql, " ORDER BY {} LIMIT ", order.join(", "));
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
