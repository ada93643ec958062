//! The store of accounts, roles and grants.

mod change;
mod definitions;
mod grants;
mod rights;
mod roles;
mod status;

pub use self::{
    change::{ActorId, Saved},
    rights::Rights,
    roles::RoleChange,
};

use drystone_mesh::{
    clock::Timestamp,
    page::Page,
    time::{from_micros, to_micros},
};
use drystone_store::{Db, Migration, migration, outbox, run};
use uuid::Uuid;

use self::definitions::DefinitionCache;
use crate::{Account, DisplayName, Email, Error, NewAccount, Status, role::Permission};

/// The migrations of the schema.
pub const MIGRATIONS: &[Migration] =
    &[migration!("0001", "account"), outbox::migration(2), migration!("0003", "roles"), migration!("0004", "status")];

/// The grants of an account: the role, a space, when it expires, and commas between them.
macro_rules! grants_column {
    () => {
        "(
             SELECT string_agg(role || ' ' || COALESCE(CAST(expires_at AS TEXT), ''), ',')
             FROM role_grant
             WHERE role_grant.user_id = account.id
         )"
    };
}
use grants_column;

/// The columns of an account, in the order of [`AccountRow`].
macro_rules! columns {
    () => {
        concat!("id, email, display_name, version, created_at, updated_at, status, ", $crate::store::grants_column!())
    };
}
pub(crate) use columns;

/// The last column is `grants_column`.
type AccountRow = (Uuid, String, String, i64, i64, i64, i16, Option<String>);

/// What instances of the release before read as roles: those of a new account.
const ROLES_OF_RELEASE_BEFORE: &str = "member";

/// The store of accounts, roles and grants. `tests/user/store.rs` tests what it promises on both engines.
#[derive(Debug, Clone)]
pub struct UserStore {
    db: Db,
    definitions: DefinitionCache,
}

impl UserStore {
    /// A store in a database that was opened with [`MIGRATIONS`]. `declared` are the permissions of the contracts.
    #[must_use]
    pub fn new(db: Db, declared: Vec<Permission>) -> Self {
        Self { db, definitions: DefinitionCache::new(declared) }
    }

    /// The database, for the relay of the outbox.
    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    /// Creates an account. Idempotent: the same id with the same e-mail address returns the existing account.
    ///
    /// # Errors
    /// [`Error::EmailTaken`], [`Error::IdTaken`].
    pub async fn create(&self, new: NewAccount, now: Timestamp) -> Result<Account, Error> {
        self.db.retry(|| self.create_once(&new, now)).await
    }

    /// The account with this id.
    pub async fn find(&self, id: Uuid) -> Result<Option<Account>, Error> {
        let row = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, AccountRow>(concat!("SELECT ", columns!(), " FROM account WHERE id = $1"))
                .bind(id)
                .fetch_optional(db)
                .await?
        });
        Ok(row.map(read_account))
    }

    /// The account with this e-mail address, case-insensitive.
    pub async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, Error> {
        let row = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, AccountRow>(concat!("SELECT ", columns!(), " FROM account WHERE email_key = $1"))
                .bind(email.key())
                .fetch_optional(db)
                .await?
        });
        Ok(row.map(read_account))
    }

    /// The accounts of a page, oldest first, plus one more if there is a next page.
    pub async fn list(&self, page: &Page) -> Result<Vec<Account>, Error> {
        // The nil UUID is less than every UUID of version 7.
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, AccountRow>(concat!(
                "SELECT ",
                columns!(),
                " FROM account WHERE id > $1 ORDER BY id LIMIT $2"
            ))
            .bind(page.after.unwrap_or(Uuid::nil()))
            .bind(page.limit())
            .fetch_all(db)
            .await?
        });
        Ok(rows.into_iter().map(read_account).collect())
    }

    /// Changes the display name, if the account is at this version. If the name is the same, the version does not
    /// change.
    ///
    /// # Errors
    /// [`Error::Stale`] if the account is at another version.
    pub async fn rename(
        &self,
        id: Uuid,
        name: &DisplayName,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Account>, Error> {
        self.db.retry(|| self.rename_once(id, name, version, now)).await
    }
}

/// Transactions that may be retried as a whole.
impl UserStore {
    async fn create_once(&self, new: &NewAccount, now: Timestamp) -> Result<Account, Error> {
        let mut transaction = self.db.begin().await?;
        let key = new.email.key();
        let created = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!(
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
            .bind(ROLES_OF_RELEASE_BEFORE)
            .bind(to_micros(now))
            .fetch_optional(connection)
            .await?
        });
        if let Some(row) = created {
            transaction.commit().await?;
            return Ok(read_account(row));
        }
        let existing = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!("SELECT ", columns!(), " FROM account WHERE id = $1"))
                .bind(new.id)
                .fetch_optional(connection)
                .await?
        });
        match existing.map(read_account) {
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
            sqlx::query_as::<_, AccountRow>(concat!(
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
            return Ok(Some(read_account(row)));
        }
        let exists = run!(transaction.connection(), |connection| {
            sqlx::query("SELECT 1 FROM account WHERE id = $1").bind(id).fetch_optional(connection).await?.is_some()
        });
        if exists { Err(Error::Stale) } else { Ok(None) }
    }
}

fn read_account(row: AccountRow) -> Account {
    let (id, email, display_name, version, created_at, updated_at, status, grants) = row;
    Account {
        id,
        email: Email::from_stored(email),
        display_name: DisplayName::from_stored(display_name),
        grants: rights::read_grants(grants.as_deref()),
        status: Status::from_column(status),
        version,
        created_at: from_micros(created_at),
        updated_at: from_micros(updated_at),
    }
}
