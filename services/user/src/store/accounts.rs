//! Accounts: their rows, and how they are created and found.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{
    Transaction,
    request_id::{Claimed, Creation},
    run,
};
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    REQUEST_IDS, UserStore, email,
    profile::StoredProfile,
    rights,
    words::{self, AccountWords},
};
use crate::{
    Account, DisplayName, Email, Error, NewAccount, Status,
    account::{Deletion, TelegramId},
    search,
};

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
pub(super) use grants_column;

/// The columns of an account, in the order of [`AccountRow`].
macro_rules! columns {
    () => {
        concat!(
            "id, email, email_verified_at, display_name, profile, telegram_id, status, deleted_at, purge_at, version, created_at, updated_at, ",
            $crate::store::accounts::grants_column!()
        )
    };
}
pub(super) use columns;

/// The last column is `grants_column`.
pub(super) type AccountRow = (
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

/// What instances of the release before read as roles: those of a new account.
pub(super) const ROLES_OF_RELEASE_BEFORE: &str = "member";

impl UserStore {
    /// Creates an account. Idempotent: the same id with the same e-mail address returns the existing account.
    ///
    /// # Errors
    /// [`Error::EmailTaken`], [`Error::IdTaken`].
    pub async fn create(&self, new: NewAccount, now: Timestamp) -> Result<Account, Error> {
        self.db.retry(|| self.create_once(&new, now)).await
    }

    /// Creates an account for an administrator. Idempotent for [`request_id::LIFETIME`](drystone_store::request_id::LIFETIME): the
    /// same request id and fingerprint return the account that was created, as it is now.
    ///
    /// # Errors
    /// [`Error::EmailTaken`]; [`Error::RequestIdReused`], [`Error::TooManyRequestIds`]; [`Error::NotFound`] if the account has been
    /// removed since.
    pub async fn create_for(
        &self,
        new: NewAccount,
        request: Option<Creation>,
        now: Timestamp,
    ) -> Result<Account, Error> {
        self.db.retry(|| self.create_for_once(&new, request, now)).await
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

    /// The account that is linked to this Telegram user.
    pub async fn find_by_telegram_id(&self, id: TelegramId) -> Result<Option<Account>, Error> {
        let row = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, AccountRow>(concat!("SELECT ", columns!(), " FROM account WHERE telegram_id = $1"))
                .bind(id.get())
                .fetch_optional(db)
                .await?
        });
        Ok(row.map(read_account))
    }
}

/// Transactions that may be retried as a whole.
impl UserStore {
    async fn create_once(&self, new: &NewAccount, now: Timestamp) -> Result<Account, Error> {
        let mut transaction = self.db.begin().await?;
        if let Some(account) = insert(&mut transaction, new, now).await? {
            transaction.commit().await?;
            return Ok(account);
        }
        match find(&mut transaction, new.id).await? {
            Some(account) if account.email.key() == new.email.key() => Ok(account),
            Some(_) => Err(Error::IdTaken),
            None if was_purged(&mut transaction, new.id).await? => Err(Error::IdTaken),
            None => Err(Error::EmailTaken),
        }
    }

    async fn create_for_once(
        &self,
        new: &NewAccount,
        request: Option<Creation>,
        now: Timestamp,
    ) -> Result<Account, Error> {
        let mut transaction = self.db.begin().await?;
        if let Some(creation) = request {
            match REQUEST_IDS.claim(&mut transaction, &creation, now).await? {
                Claimed::New => {}
                Claimed::Created(id) => return find(&mut transaction, id).await?.ok_or(Error::NotFound),
                Claimed::Reused => return Err(Error::RequestIdReused),
                Claimed::TooMany => return Err(Error::TooManyRequestIds),
            }
        }
        let account = insert(&mut transaction, new, now).await?.ok_or(Error::EmailTaken)?;
        transaction.commit().await?;
        Ok(account)
    }
}

/// `None` if an account has the id or the address.
async fn insert(transaction: &mut Transaction, new: &NewAccount, now: Timestamp) -> Result<Option<Account>, Error> {
    let created = run!(transaction.connection(), |connection| {
        sqlx::query_as::<_, AccountRow>(concat!(
            "INSERT INTO account
                 (id, email, email_key, display_name, profile, roles, has_words, version, created_at, updated_at)
             SELECT $1, $2, $3, $4, $5, $6, 1, 1, $7, $7
             WHERE NOT EXISTS (SELECT 1 FROM purged_account WHERE purged_account.id = $1)
             ON CONFLICT DO NOTHING
             RETURNING ",
            columns!()
        ))
        .bind(new.id)
        .bind(new.email.as_str())
        .bind(new.email.key())
        .bind(new.profile.display_name.as_str())
        .bind(Json(StoredProfile::from(&new.profile)))
        .bind(ROLES_OF_RELEASE_BEFORE)
        .bind(to_micros(now))
        .fetch_optional(connection)
        .await?
    });
    let Some(account) = created.map(read_account) else { return Ok(None) };
    email::refuse_kept(transaction, new.id, &new.email.key(), now).await?;
    let words = AccountWords { user_id: new.id, words: search::words(&new.email, &new.profile) };
    words::insert(transaction, &[words]).await?;
    Ok(Some(account))
}

async fn was_purged(transaction: &mut Transaction, id: Uuid) -> Result<bool, Error> {
    Ok(run!(transaction.connection(), |connection| {
        sqlx::query("SELECT 1 FROM purged_account WHERE id = $1").bind(id).fetch_optional(connection).await?.is_some()
    }))
}

/// The account with this id, read in this transaction.
pub(super) async fn find(transaction: &mut Transaction, id: Uuid) -> Result<Option<Account>, Error> {
    let row = run!(transaction.connection(), |connection| {
        sqlx::query_as::<_, AccountRow>(concat!("SELECT ", columns!(), " FROM account WHERE id = $1"))
            .bind(id)
            .fetch_optional(connection)
            .await?
    });
    Ok(row.map(read_account))
}

pub(super) fn read_account(row: AccountRow) -> Account {
    let (
        id,
        email,
        email_verified_at,
        display_name,
        profile,
        telegram_id,
        status,
        deleted_at,
        purge_at,
        version,
        created_at,
        updated_at,
        grants,
    ) = row;
    let status = Status::from_column(status);
    // The release before, which knows no deletion, may have enabled a deleted account.
    let deletion = deleted_at.zip(purge_at).filter(|_| status == Status::Deleted);
    Account {
        id,
        email: Email::from_stored(email),
        email_verified_at: email_verified_at.map(from_micros),
        profile: profile.0.into_profile(DisplayName::from_stored(display_name)),
        telegram_id: telegram_id.and_then(TelegramId::new),
        grants: rights::read_grants(grants.as_deref()),
        status,
        deletion: deletion.map(|(at, purge_at)| Deletion { at: from_micros(at), purge_at: from_micros(purge_at) }),
        version,
        created_at: from_micros(created_at),
        updated_at: from_micros(updated_at),
    }
}
