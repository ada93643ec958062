//! Where accounts are kept.

use drystone_mesh::{
    clock::Timestamp,
    page::Page,
    time::{from_micros, to_micros},
};
use drystone_store::{Db, Migration, run};
use uuid::Uuid;

use crate::{Account, DisplayName, Email, Error, NewAccount, Roles};

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "account",
    sqlite: include_str!("../migrations/sqlite/0001_account.sql"),
    postgres: include_str!("../migrations/postgres/0001_account.sql"),
}];

/// The columns of an account, in the order of [`Row`].
macro_rules! columns {
    () => {
        "id, email, display_name, roles, version, created_at, updated_at"
    };
}

type Row = (Uuid, String, String, String, i64, i64, i64);

/// Where accounts are kept. What the store promises on both engines is in `tests/user/store.rs`.
#[derive(Debug, Clone)]
pub struct UserStore {
    db: Db,
}

impl UserStore {
    /// The store in a database that was opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Adds an account. The id with the same address again answers the account that is there.
    ///
    /// # Errors
    /// [`Error::EmailTaken`], [`Error::IdTaken`].
    pub async fn create(&self, new: NewAccount, now: Timestamp) -> Result<Account, Error> {
        self.db.retry(|| self.create_once(&new, now)).await
    }

    /// The account of this id.
    pub async fn find(&self, id: Uuid) -> Result<Option<Account>, Error> {
        run!(self.db.reader(), |db| {
            sqlx::query_as::<_, Row>(concat!("SELECT ", columns!(), " FROM account WHERE id = $1"))
                .bind(id)
                .fetch_optional(db)
                .await?
        })
        .map(read)
        .transpose()
    }

    /// The account of this address, in whatever case.
    pub async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, Error> {
        run!(self.db.reader(), |db| {
            sqlx::query_as::<_, Row>(concat!("SELECT ", columns!(), " FROM account WHERE email_key = $1"))
                .bind(email.key())
                .fetch_optional(db)
                .await?
        })
        .map(read)
        .transpose()
    }

    /// The accounts of a page and one more, if there is one; oldest first.
    pub async fn list(&self, page: &Page) -> Result<Vec<Account>, Error> {
        // Every id of version 7 is greater than the nil one.
        run!(self.db.reader(), |db| {
            sqlx::query_as::<_, Row>(concat!("SELECT ", columns!(), " FROM account WHERE id > $1 ORDER BY id LIMIT $2"))
                .bind(page.after.unwrap_or(Uuid::nil()))
                .bind(page.limit())
                .fetch_all(db)
                .await?
        })
        .into_iter()
        .map(read)
        .collect()
    }

    /// Gives an account this name, if it is still at this version. An account that has it stays as it is, version and all.
    ///
    /// # Errors
    /// [`Error::Stale`] if it is not.
    pub async fn rename(
        &self,
        id: Uuid,
        name: &DisplayName,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Account>, Error> {
        self.db.retry(|| self.rename_once(id, name, version, now)).await
    }

    /// Gives an account these roles and no others. An account that has them stays as it is, version and all.
    pub async fn set_roles(&self, id: Uuid, roles: Roles, now: Timestamp) -> Result<Option<Account>, Error> {
        // All rows, though there is at most one: a read that stops early would miss that the commit failed.
        let mut changed = run!(self.db.writer(), |db| {
            sqlx::query_as::<_, Row>(concat!(
                "UPDATE account
                 SET roles = $2,
                     version = CASE WHEN roles = $2 THEN version ELSE version + 1 END,
                     updated_at = CASE WHEN roles = $2 THEN updated_at ELSE $3 END
                 WHERE id = $1
                 RETURNING ",
                columns!()
            ))
            .bind(id)
            .bind(roles.to_string())
            .bind(to_micros(now))
            .fetch_all(db)
            .await?
        });
        changed.pop().map(read).transpose()
    }
}

/// Transactions that may be retried as a whole.
impl UserStore {
    async fn create_once(&self, new: &NewAccount, now: Timestamp) -> Result<Account, Error> {
        let mut transaction = self.db.begin().await?;
        let key = new.email.key();
        let created = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, Row>(concat!(
                "INSERT INTO account (id, email, email_key, display_name, roles, version, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, 1, $6, $6)
                 ON CONFLICT DO NOTHING
                 RETURNING ",
                columns!()
            ))
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
            return read(row);
        }
        let there = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, Row>(concat!("SELECT ", columns!(), " FROM account WHERE id = $1"))
                .bind(new.id)
                .fetch_optional(connection)
                .await?
        });
        match there.map(read).transpose()? {
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
            sqlx::query_as::<_, Row>(concat!(
                "UPDATE account
                 SET display_name = $2,
                     version = CASE WHEN display_name = $2 THEN version ELSE version + 1 END,
                     updated_at = CASE WHEN display_name = $2 THEN updated_at ELSE $3 END
                 WHERE id = $1 AND version = COALESCE($4, version)
                 RETURNING ",
                columns!()
            ))
            .bind(id)
            .bind(name.as_str())
            .bind(to_micros(now))
            .bind(version)
            .fetch_optional(connection)
            .await?
        });
        if let Some(row) = renamed {
            transaction.commit().await?;
            return read(row).map(Some);
        }
        let there = run!(transaction.connection(), |connection| {
            sqlx::query("SELECT 1 FROM account WHERE id = $1").bind(id).fetch_optional(connection).await?.is_some()
        });
        if there { Err(Error::Stale) } else { Ok(None) }
    }
}

fn read((id, email, display_name, roles, version, created_at, updated_at): Row) -> Result<Account, Error> {
    Ok(Account {
        id,
        email: Email::from_stored(email),
        display_name: DisplayName::from_stored(display_name),
        roles: roles.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        version,
        created_at: from_micros(created_at),
        updated_at: from_micros(updated_at),
    })
}
