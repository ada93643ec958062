//! The words that accounts are found by.

use std::collections::BTreeSet;

use drystone_store::{Transaction, places, run, values};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{
    UserStore,
    accounts::{AccountRow, columns, read_account},
};
use crate::{Account, Error, search};

/// How many words one statement inserts, at most.
const INSERT_BATCH: usize = 200;

/// How many accounts are completed at once.
const COMPLETE_BATCH: i64 = 200;

/// The words of an account.
#[derive(Debug, Clone)]
pub(super) struct AccountWords {
    pub(super) user_id: Uuid,
    pub(super) words: BTreeSet<String>,
}

impl AccountWords {
    pub(super) fn of(account: &Account) -> Self {
        Self { user_id: account.id, words: search::words(&account.email, &account.profile) }
    }
}

impl UserStore {
    /// Writes the words of accounts that have none: those that an instance of the release before has created or changed. Returns of how
    /// many.
    pub async fn complete_words(&self) -> Result<usize, Error> {
        let mut total = 0;
        loop {
            let completed = self.db.retry(|| self.complete_words_once()).await?;
            total += completed;
            if i64::try_from(completed).is_ok_and(|completed| completed < COMPLETE_BATCH) {
                return Ok(total);
            }
        }
    }

    async fn complete_words_once(&self) -> Result<usize, Error> {
        let mut transaction = self.db.begin().await?;
        let rows = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, AccountRow>(concat!(
                "UPDATE account
                 SET has_words = 1
                 WHERE id IN (SELECT id FROM account WHERE has_words = 0 ORDER BY id LIMIT $1)
                 RETURNING ",
                columns!()
            ))
            .bind(COMPLETE_BATCH)
            .fetch_all(connection)
            .await?
        });
        let all: Vec<_> = rows.into_iter().map(read_account).map(|account| AccountWords::of(&account)).collect();
        for batch in all.chunks(INSERT_BATCH) {
            let sql = format!("DELETE FROM account_word WHERE user_id IN ({})", places(1, batch.len()));
            run!(transaction.connection(), |connection| {
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for one in batch {
                    query = query.bind(one.user_id);
                }
                query.execute(connection).await?;
            });
        }
        insert(&mut transaction, &all).await?;
        transaction.commit().await?;
        Ok(all.len())
    }
}

/// Inserts the words of accounts, which may have some of them.
pub(super) async fn insert(transaction: &mut Transaction, all: &[AccountWords]) -> Result<(), Error> {
    let rows: Vec<(&str, Uuid)> =
        all.iter().flat_map(|one| one.words.iter().map(|word| (word.as_str(), one.user_id))).collect();
    for batch in rows.chunks(INSERT_BATCH) {
        let sql = format!(
            "INSERT INTO account_word (word, user_id) VALUES {} ON CONFLICT DO NOTHING",
            values(batch.len(), 2)
        );
        run!(transaction.connection(), |connection| {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (word, user_id) in batch {
                query = query.bind(*word).bind(*user_id);
            }
            query.execute(connection).await?;
        });
    }
    Ok(())
}

/// Replaces the words of an account.
pub(super) async fn replace(transaction: &mut Transaction, new: AccountWords) -> Result<(), Error> {
    let user_id = new.user_id;
    run!(transaction.connection(), |connection| {
        sqlx::query("DELETE FROM account_word WHERE user_id = $1").bind(user_id).execute(connection).await?;
    });
    insert(transaction, &[new]).await?;
    run!(transaction.connection(), |connection| {
        sqlx::query("UPDATE account SET has_words = 1 WHERE id = $1 AND has_words = 0")
            .bind(user_id)
            .execute(connection)
            .await?;
    });
    Ok(())
}
