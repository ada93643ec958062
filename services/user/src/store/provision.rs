//! Accounts of imports.

use std::collections::{HashMap, HashSet};

use drystone_mesh::{clock::Timestamp, time::to_micros};
use drystone_store::{Transaction, places, run, values};
use sqlx::{AssertSqlSafe, types::Json};
use uuid::Uuid;

use super::{
    ActorId, UserStore,
    accounts::ROLES_OF_RELEASE_BEFORE,
    email,
    profile::StoredProfile,
    words::{self, AccountWords},
};
use crate::{
    Error, NewAccount, Status,
    account::TelegramId,
    role::{ADMIN, MEMBER, RoleName},
    search,
};

/// How often an import is tried again that another change came in the way of.
const MAX_CONFLICTS: u32 = 3;

/// How many rows one statement inserts, at most.
const INSERT_BATCH: usize = 100;

/// An account to import.
#[derive(Debug, Clone)]
pub struct Import {
    /// The account.
    pub account: NewAccount,
    /// Its id in the system that it comes from.
    pub external_id: String,
    /// Its roles.
    pub roles: Vec<RoleName>,
    /// Its status.
    pub status: Status,
    /// The Telegram user that it is linked to.
    pub telegram_id: Option<TelegramId>,
    /// When it was created there.
    pub created_at: Timestamp,
    /// Whether its e-mail address was verified there.
    pub email_verified: bool,
}

/// What became of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provisioned {
    /// It is created, with the id that was given.
    Created,
    /// It was imported before, with this id.
    Existed(Uuid),
    /// Another account of the import has the same id there.
    Duplicate,
    /// Another account has the e-mail address or the Telegram user.
    Taken,
    /// There is no such role.
    UnknownRole(RoleName),
}

impl UserStore {
    /// Creates the accounts of an import, those that it can. One that the source has imported before stays as it is.
    ///
    /// # Errors
    /// The database fails: none is created.
    pub async fn provision(&self, source: &str, imports: &[Import], now: Timestamp) -> Result<Vec<Provisioned>, Error> {
        for _ in 0..MAX_CONFLICTS {
            match self.db.retry(|| self.provision_once(source, imports, now)).await {
                // Another import of the same accounts, or the deletion of a role, came between: it is seen now.
                Err(Error::Store(error)) if is_constraint_violation(&error) => {}
                outcome => return outcome,
            }
        }
        self.provision_once(source, imports, now).await
    }

    /// The ids of accounts that a source has imported, by their ids there.
    pub async fn imported(&self, source: &str, external_ids: &[&str]) -> Result<HashMap<String, Uuid>, Error> {
        let mut found = HashMap::new();
        for batch in external_ids.chunks(INSERT_BATCH) {
            let sql = format!(
                "SELECT external_id, user_id FROM imported_account WHERE source = $1 AND external_id IN ({})",
                places(2, batch.len())
            );
            let rows = run!(self.db.reader(), |db| {
                let mut query = sqlx::query_as::<_, (String, Uuid)>(AssertSqlSafe(sql)).bind(source);
                for id in batch {
                    query = query.bind(*id);
                }
                query.fetch_all(db).await?
            });
            found.extend(rows);
        }
        Ok(found)
    }

    async fn provision_once(
        &self,
        source: &str,
        imports: &[Import],
        now: Timestamp,
    ) -> Result<Vec<Provisioned>, Error> {
        let definitions = self.definitions().await?;
        let external_ids: Vec<_> = imports.iter().map(|import| import.external_id.as_str()).collect();
        let existing = self.imported(source, &external_ids).await?;
        let mut seen = HashSet::new();
        let mut outcomes: Vec<_> = imports
            .iter()
            .map(|import| {
                if let Some(id) = existing.get(&import.external_id) {
                    return Provisioned::Existed(*id);
                }
                let unknown = import.roles.iter().find(|role| definitions.role(role.as_str()).is_none());
                match unknown {
                    Some(role) => Provisioned::UnknownRole(role.clone()),
                    None if seen.insert(&import.external_id) => Provisioned::Created,
                    None => Provisioned::Duplicate,
                }
            })
            .collect();
        let wanted: Vec<_> = imports
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| **outcome == Provisioned::Created)
            .map(|(import, _)| import)
            .collect();

        let mut transaction = self.db.begin().await?;
        let mut created = HashSet::new();
        for batch in wanted.chunks(INSERT_BATCH) {
            created.extend(insert_accounts(&mut transaction, batch, now).await?);
        }
        for id in of_kept_emails(&mut transaction, &wanted, now).await? {
            delete(&mut transaction, id).await?;
            created.remove(&id);
        }
        let wanted: Vec<_> = wanted.into_iter().filter(|import| created.contains(&import.account.id)).collect();
        for batch in wanted.chunks(INSERT_BATCH) {
            insert_external_ids(&mut transaction, source, batch).await?;
            insert_grants(&mut transaction, batch, now).await?;
        }
        let words: Vec<_> = wanted.iter().map(|import| words_of(&import.account)).collect();
        words::insert(&mut transaction, &words).await?;
        transaction.commit().await?;

        let is_refused = |import: &Import| !created.contains(&import.account.id);
        let refused: Vec<_> =
            imports.iter().filter(|import| is_refused(import)).map(|import| import.external_id.as_str()).collect();
        // Another import of the same source may have been faster.
        let existing = self.imported(source, &refused).await?;
        for (import, outcome) in imports.iter().zip(&mut outcomes) {
            if *outcome == Provisioned::Created && is_refused(import) {
                let id = existing.get(&import.external_id);
                *outcome = id.map_or(Provisioned::Taken, |id| Provisioned::Existed(*id));
            }
        }
        Ok(outcomes)
    }
}

fn is_constraint_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation() || error.is_foreign_key_violation())
}

fn words_of(account: &NewAccount) -> AccountWords {
    AccountWords { user_id: account.id, words: search::words(&account.email, &account.profile) }
}

/// Returns the ids of those that were created: of the others the address or the Telegram user is taken.
async fn insert_accounts(
    transaction: &mut Transaction,
    imports: &[&Import],
    now: Timestamp,
) -> Result<Vec<Uuid>, Error> {
    let sql = format!(
        "INSERT INTO account
             (id, email, email_key, display_name, profile, telegram_id, status, roles, has_words, version, created_at, updated_at, email_verified_at)
         VALUES {}
         ON CONFLICT DO NOTHING
         RETURNING id",
        values(imports.len(), 13)
    );
    Ok(run!(transaction.connection(), |connection| {
        let mut query = sqlx::query_scalar::<_, Uuid>(AssertSqlSafe(sql));
        for import in imports {
            let NewAccount { id, email, profile } = &import.account;
            let is_admin = import.status == Status::Active && import.roles.iter().any(|role| role.as_str() == ADMIN);
            query = query
                .bind(*id)
                .bind(email.as_str())
                .bind(email.key())
                .bind(profile.display_name.as_str())
                .bind(Json(StoredProfile::from(profile)))
                .bind(import.telegram_id.map(TelegramId::get))
                .bind(import.status.to_column())
                .bind(if is_admin { "admin member" } else { ROLES_OF_RELEASE_BEFORE })
                .bind(1_i16)
                .bind(1_i64)
                .bind(to_micros(import.created_at))
                .bind(to_micros(now))
                .bind(import.email_verified.then_some(to_micros(now)));
        }
        query.fetch_all(connection).await?
    }))
}

/// The new accounts whose addresses are kept for others.
async fn of_kept_emails(
    transaction: &mut Transaction,
    imports: &[&Import],
    now: Timestamp,
) -> Result<Vec<Uuid>, Error> {
    let mut taken = Vec::new();
    for batch in imports.chunks(INSERT_BATCH) {
        let keys: Vec<_> = batch.iter().map(|import| import.account.email.key()).collect();
        let kept: HashSet<_> = email::kept(transaction, &keys, now).await?.into_iter().map(|(key, _)| key).collect();
        let is_kept = |(import, key): &(&&Import, &String)| kept.contains(*key).then_some(import.account.id);
        taken.extend(batch.iter().zip(&keys).filter_map(|pair| is_kept(&pair)));
    }
    Ok(taken)
}

async fn delete(transaction: &mut Transaction, id: Uuid) -> Result<(), Error> {
    run!(transaction.connection(), |connection| {
        sqlx::query("DELETE FROM account WHERE id = $1").bind(id).execute(connection).await?;
    });
    Ok(())
}

async fn insert_external_ids(transaction: &mut Transaction, source: &str, imports: &[&Import]) -> Result<(), Error> {
    let sql =
        format!("INSERT INTO imported_account (source, external_id, user_id) VALUES {}", values(imports.len(), 3));
    run!(transaction.connection(), |connection| {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for import in imports {
            query = query.bind(source).bind(import.external_id.as_str()).bind(import.account.id);
        }
        query.execute(connection).await?;
    });
    Ok(())
}

async fn insert_grants(transaction: &mut Transaction, imports: &[&Import], now: Timestamp) -> Result<(), Error> {
    let granted = |import: &&&Import| {
        let roles: HashSet<_> = import.roles.iter().filter(|role| role.as_str() != MEMBER).cloned().collect();
        let user_id = import.account.id;
        roles.into_iter().map(move |role| (user_id, role)).collect::<Vec<_>>()
    };
    let grants: Vec<_> = imports.iter().flat_map(|import| granted(&import)).collect();
    for batch in grants.chunks(INSERT_BATCH) {
        let sql =
            format!("INSERT INTO role_grant (user_id, role, granted_by, granted_at) VALUES {}", values(batch.len(), 4));
        run!(transaction.connection(), |connection| {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (user_id, role) in batch {
                query =
                    query.bind(*user_id).bind(role.as_str()).bind(ActorId::Operator.to_string()).bind(to_micros(now));
            }
            query.execute(connection).await?;
        });
    }
    Ok(())
}
