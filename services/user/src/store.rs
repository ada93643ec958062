//! The store of accounts.

use drystone_mesh::{
    clock::Timestamp,
    page::Page,
    time::{from_micros, to_micros},
};
use drystone_store::{Db, Migration, migration, outbox, run};
use uuid::Uuid;

use crate::{Account, DisplayName, Email, Error, NewAccount, Roles, void_tokens};

/// The migrations of the schema.
pub const MIGRATIONS: &[Migration] = &[migration!("0001", "account"), outbox::migration(2)];

/// The columns of an account, in the order of [`AccountRow`].
macro_rules! columns {
    () => {
        "id, email, display_name, roles, version, created_at, updated_at"
    };
}

type AccountRow = (Uuid, String, String, String, i64, i64, i64);

/// The store of accounts. `tests/user/store.rs` tests what it promises on both engines.
#[derive(Debug, Clone)]
pub struct UserStore {
    db: Db,
}

impl UserStore {
    /// A store in a database that was opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self { db }
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
        run!(self.db.reader(), |db| {
            sqlx::query_as::<_, AccountRow>(concat!("SELECT ", columns!(), " FROM account WHERE id = $1"))
                .bind(id)
                .fetch_optional(db)
                .await?
        })
        .map(read_account)
        .transpose()
    }

    /// The account with this e-mail address, case-insensitive.
    pub async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, Error> {
        run!(self.db.reader(), |db| {
            sqlx::query_as::<_, AccountRow>(concat!("SELECT ", columns!(), " FROM account WHERE email_key = $1"))
                .bind(email.key())
                .fetch_optional(db)
                .await?
        })
        .map(read_account)
        .transpose()
    }

    /// The accounts of a page, oldest first, plus one more if there is a next page.
    pub async fn list(&self, page: &Page) -> Result<Vec<Account>, Error> {
        // The nil UUID is less than every UUID of version 7.
        run!(self.db.reader(), |db| {
            sqlx::query_as::<_, AccountRow>(concat!(
                "SELECT ",
                columns!(),
                " FROM account WHERE id > $1 ORDER BY id LIMIT $2"
            ))
            .bind(page.after.unwrap_or(Uuid::nil()))
            .bind(page.limit())
            .fetch_all(db)
            .await?
        })
        .into_iter()
        .map(read_account)
        .collect()
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

    /// Replaces the roles. If they are the same, the version does not change. In the same transaction the message is written that
    /// voids the tokens with the previous roles. Returns the account, and the id of the message.
    pub async fn set_roles(&self, id: Uuid, roles: Roles, now: Timestamp) -> Result<Option<(Account, Uuid)>, Error> {
        self.db.retry(|| self.set_roles_once(id, roles, now)).await
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
            .bind(new.roles.to_string())
            .bind(to_micros(now))
            .fetch_optional(connection)
            .await?
        });
        if let Some(row) = created {
            transaction.commit().await?;
            return read_account(row);
        }
        let existing = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!("SELECT ", columns!(), " FROM account WHERE id = $1"))
                .bind(new.id)
                .fetch_optional(connection)
                .await?
        });
        match existing.map(read_account).transpose()? {
            Some(account) if account.email.key() == key => Ok(account),
            Some(_) => Err(Error::IdTaken),
            None => Err(Error::EmailTaken),
        }
    }

    async fn set_roles_once(&self, id: Uuid, roles: Roles, now: Timestamp) -> Result<Option<(Account, Uuid)>, Error> {
        let mut transaction = self.db.begin().await?;
        let changed = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!(
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
            .fetch_optional(connection)
            .await?
        });
        let Some(account) = changed.map(read_account).transpose()? else { return Ok(None) };
        let message = void_tokens::message(id, now);
        outbox::put(&mut transaction, &message).await?;
        transaction.commit().await?;
        Ok(Some((account, message.id)))
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
            return read_account(row).map(Some);
        }
        let exists = run!(transaction.connection(), |connection| {
            sqlx::query("SELECT 1 FROM account WHERE id = $1").bind(id).fetch_optional(connection).await?.is_some()
        });
        if exists { Err(Error::Stale) } else { Ok(None) }
    }
}

fn read_account(
    (id, email, display_name, roles, version, created_at, updated_at): AccountRow,
) -> Result<Account, Error> {
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
