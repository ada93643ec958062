//! Where accounts are kept.

use async_trait::async_trait;
use drystone_mesh::{
    clock::Timestamp,
    page::Page,
    time::{from_micros, to_micros},
};
use drystone_store::{Db, Migration, run};
use sqlx::FromRow;
use uuid::Uuid;

use crate::{Account, DisplayName, Email, Error, NewAccount, Roles};

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "account",
    sqlite: include_str!("../migrations/sqlite/0001_account.sql"),
    postgres: include_str!("../migrations/postgres/0001_account.sql"),
}];

/// Where accounts are kept. What every store promises is written down in `tests/store.rs`.
#[async_trait]
pub trait UserStore: Send + Sync {
    /// Adds an account. The id with the same address again answers the account that is there.
    ///
    /// # Errors
    /// [`Error::EmailTaken`], [`Error::IdTaken`].
    async fn create(&self, new: NewAccount, now: Timestamp) -> Result<Account, Error>;

    /// The account of this id.
    async fn find(&self, id: Uuid) -> Result<Option<Account>, Error>;

    /// The account of this address, in whatever case.
    async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, Error>;

    /// The accounts of a page and one more, if there is one; oldest first.
    async fn list(&self, page: &Page) -> Result<Vec<Account>, Error>;

    /// Gives an account this name, if it is still at this version. An account that has it stays as it is, version and all.
    ///
    /// # Errors
    /// [`Error::Stale`] if it is not.
    async fn rename(
        &self,
        id: Uuid,
        name: &DisplayName,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Account>, Error>;

    /// Gives an account these roles and no others. An account that has them stays as it is, version and all.
    async fn set_roles(&self, id: Uuid, roles: Roles, now: Timestamp) -> Result<Option<Account>, Error>;
}

/// Accounts in a SQL database.
#[derive(Debug, Clone)]
pub struct SqlStore {
    db: Db,
}

impl SqlStore {
    /// The store in a database that was opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl UserStore for SqlStore {
    async fn create(&self, new: NewAccount, now: Timestamp) -> Result<Account, Error> {
        self.db.retry(|| self.create_once(&new, now)).await
    }

    async fn find(&self, id: Uuid) -> Result<Option<Account>, Error> {
        run!(self.db.reader(), |db| {
            sqlx::query_as::<_, Row>(
                "SELECT id, email, display_name, roles, version, created_at, updated_at
                 FROM account
                 WHERE id = $1",
            )
            .bind(id)
            .fetch_optional(db)
            .await?
        })
        .map(Account::try_from)
        .transpose()
    }

    async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, Error> {
        run!(self.db.reader(), |db| {
            sqlx::query_as::<_, Row>(
                "SELECT id, email, display_name, roles, version, created_at, updated_at
                 FROM account
                 WHERE email_key = $1",
            )
            .bind(email.key())
            .fetch_optional(db)
            .await?
        })
        .map(Account::try_from)
        .transpose()
    }

    async fn list(&self, page: &Page) -> Result<Vec<Account>, Error> {
        // Every id of version 7 is greater than the nil one.
        run!(self.db.reader(), |db| {
            sqlx::query_as::<_, Row>(
                "SELECT id, email, display_name, roles, version, created_at, updated_at
                 FROM account
                 WHERE id > $1
                 ORDER BY id
                 LIMIT $2",
            )
            .bind(page.after.unwrap_or(Uuid::nil()))
            .bind(page.limit())
            .fetch_all(db)
            .await?
        })
        .into_iter()
        .map(Account::try_from)
        .collect()
    }

    async fn rename(
        &self,
        id: Uuid,
        name: &DisplayName,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Account>, Error> {
        self.db.retry(|| self.rename_once(id, name, version, now)).await
    }

    async fn set_roles(&self, id: Uuid, roles: Roles, now: Timestamp) -> Result<Option<Account>, Error> {
        // All rows, though there is at most one: a read that stops early would miss that the commit failed.
        let mut changed = run!(self.db.writer(), |db| {
            sqlx::query_as::<_, Row>(
                "UPDATE account
                 SET roles = $2,
                     version = CASE WHEN roles = $2 THEN version ELSE version + 1 END,
                     updated_at = CASE WHEN roles = $2 THEN updated_at ELSE $3 END
                 WHERE id = $1
                 RETURNING id, email, display_name, roles, version, created_at, updated_at",
            )
            .bind(id)
            .bind(roles.to_string())
            .bind(to_micros(now))
            .fetch_all(db)
            .await?
        });
        changed.pop().map(Account::try_from).transpose()
    }
}

/// Transactions that may be repeated as a whole.
impl SqlStore {
    async fn create_once(&self, new: &NewAccount, now: Timestamp) -> Result<Account, Error> {
        let mut transaction = self.db.begin().await?;
        let key = new.email.key();
        let created = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, Row>(
                "INSERT INTO account (id, email, email_key, display_name, roles, version, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, 1, $6, $6)
                 ON CONFLICT DO NOTHING
                 RETURNING id, email, display_name, roles, version, created_at, updated_at",
            )
            .bind(new.id)
            .bind(new.email.as_str())
            .bind(key.as_str())
            .bind(new.display_name.as_str())
            .bind(new.roles.to_string())
            .bind(to_micros(now))
            .fetch_optional(connection)
            .await?
        });
        if let Some(row) = created {
            transaction.commit().await?;
            return row.try_into();
        }
        let there = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, Row>(
                "SELECT id, email, display_name, roles, version, created_at, updated_at
                 FROM account
                 WHERE id = $1",
            )
            .bind(new.id)
            .fetch_optional(connection)
            .await?
        });
        match there.map(Account::try_from).transpose()? {
            Some(account) if account.email.key() == key => Ok(account),
            Some(_) => Err(Error::IdTaken),
            None => Err(Error::EmailTaken),
        }
    }

    async fn rename_once(
        &self,
        id: Uuid,
        name: &DisplayName,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Account>, Error> {
        let mut transaction = self.db.begin().await?;
        let renamed = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, Row>(
                "UPDATE account
                 SET display_name = $2,
                     version = CASE WHEN display_name = $2 THEN version ELSE version + 1 END,
                     updated_at = CASE WHEN display_name = $2 THEN updated_at ELSE $3 END
                 WHERE id = $1 AND version = COALESCE($4, version)
                 RETURNING id, email, display_name, roles, version, created_at, updated_at",
            )
            .bind(id)
            .bind(name.as_str())
            .bind(to_micros(now))
            .bind(version)
            .fetch_optional(connection)
            .await?
        });
        if let Some(row) = renamed {
            transaction.commit().await?;
            return row.try_into().map(Some);
        }
        let there = run!(transaction.connection(), |connection| {
            sqlx::query("SELECT 1 FROM account WHERE id = $1").bind(id).fetch_optional(connection).await?.is_some()
        });
        if there { Err(Error::Stale) } else { Ok(None) }
    }
}

/// An account as a database keeps it.
#[derive(FromRow)]
struct Row {
    id: Uuid,
    email: String,
    display_name: String,
    roles: String,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Account {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: row.id,
            email: Email::from_stored(row.email),
            display_name: DisplayName::from_stored(row.display_name),
            roles: row.roles.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            version: row.version,
            created_at: from_micros(row.created_at),
            updated_at: from_micros(row.updated_at),
        })
    }
}
