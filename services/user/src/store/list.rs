//! Lists of accounts. Each order has an index, so that a page costs the same wherever it is. Where few of the rows that an index has
//! may pass the other conditions, a page ends after a number of rows, so that no list keeps the database from others.

mod select;

use drystone_mesh::{clock::Timestamp, page::Page};
use drystone_store::run;
use sqlx::{AssertSqlSafe, types::Json};
use uuid::Uuid;

use self::select::{Bind, Select};
use super::{UserStore, accounts::read_account, profile::StoredProfile};
use crate::{Account, Error, Status, role::RoleName};

/// How many pages that may look at many rows for few accounts are read at once: fewer than the database has connections.
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

/// Binds the values of a statement.
macro_rules! bind_all {
    ($query:expr, $binds:expr) => {
        $binds.into_iter().fold($query, |query, bind| match bind {
            Bind::Id(id) => query.bind(id),
            Bind::Number(number) => query.bind(number),
            Bind::Text(text) => query.bind(text),
        })
    };
}

/// The position, and the columns of an account.
type ListRow = (
    String,
    Uuid,
    String,
    Option<i64>,
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
            let query = sqlx::query_as::<_, (String, Uuid)>(AssertSqlSafe(sql));
            bind_all!(query, binds).fetch_optional(db).await?
        }))
    }

    async fn read_list(&self, Select { sql, binds, .. }: Select) -> Result<Vec<(String, Account)>, Error> {
        let rows = run!(self.db.reader(), |db| {
            let query = sqlx::query_as::<_, ListRow>(AssertSqlSafe(sql));
            bind_all!(query, binds).fetch_all(db).await?
        });
        Ok(rows.into_iter().map(read_row).collect())
    }
}

fn read_row(row: ListRow) -> (String, Account) {
    let (
        position,
        id,
        email,
        verified,
        name,
        profile,
        telegram,
        status,
        deleted,
        purge,
        version,
        created,
        updated,
        grants,
    ) = row;
    let row = (id, email, verified, name, profile, telegram, status, deleted, purge, version, created, updated, grants);
    (position, read_account(row))
}
