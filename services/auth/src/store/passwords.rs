//! Changes of passwords, each with the messages that follow from it.

use drystone_mesh::{clock::Timestamp, time::to_micros};
use drystone_store::{
    Transaction,
    outbox::{self, Message},
    run,
};
use uuid::Uuid;

use super::{AuthStore, links};
use crate::{
    error::Error,
    password::{PasswordHash, typed_password::PasswordForm},
};

/// A new password of a user.
#[derive(Debug)]
pub struct NewPassword {
    /// The user.
    pub user_id: Uuid,
    /// Its hash.
    pub hash: PasswordHash,
    /// Which text the hash was made of.
    pub form: PasswordForm,
    /// What follows from the change.
    pub messages: Vec<Message>,
    /// The time of the change.
    pub now: Timestamp,
}

impl AuthStore {
    /// Replaces the hash `old`. All links of the user become useless. Returns false without a change if the stored hash is another
    /// one.
    pub async fn change_password(&self, old: &PasswordHash, new: &NewPassword) -> Result<bool, Error> {
        self.db.retry(|| self.change_password_once(old, new)).await
    }

    async fn change_password_once(&self, old: &PasswordHash, new: &NewPassword) -> Result<bool, Error> {
        let mut transaction = self.db.begin().await?;
        let updated = run!(transaction.connection(), |connection| {
            sqlx::query(
                "UPDATE credential
                 SET password_hash = $3, form = $4, updated_at = $5
                 WHERE user_id = $1 AND password_hash = $2",
            )
            .bind(new.user_id)
            .bind(old.as_str())
            .bind(new.hash.as_str())
            .bind(new.form.name())
            .bind(to_micros(new.now))
            .execute(connection)
            .await?
            .rows_affected()
        });
        if updated == 0 {
            return Ok(false);
        }
        finish(transaction, new).await?;
        Ok(true)
    }

    /// Sets the password of the user of a link, which serves once. All links of the user become useless.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`].
    pub async fn reset_password(&self, link: Uuid, new: &NewPassword) -> Result<(), Error> {
        self.db.retry(|| self.reset_password_once(link, new)).await
    }

    async fn reset_password_once(&self, link: Uuid, new: &NewPassword) -> Result<(), Error> {
        let mut transaction = self.db.begin().await?;
        links::consume(&mut transaction, link, new.user_id, new.now).await?;
        // A user who was imported without a password has none yet.
        run!(transaction.connection(), |connection| {
            sqlx::query(
                "INSERT INTO credential (user_id, password_hash, form, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $4)
                 ON CONFLICT (user_id) DO UPDATE
                 SET password_hash = $2, form = $3, updated_at = $4, pending_since = NULL",
            )
            .bind(new.user_id)
            .bind(new.hash.as_str())
            .bind(new.form.name())
            .bind(to_micros(new.now))
            .execute(connection)
            .await?;
        });
        finish(transaction, new).await
    }

    /// Stores a message of the outbox by itself.
    pub async fn put(&self, message: &Message) -> Result<(), Error> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                outbox::put(&mut transaction, message).await?;
                transaction.commit().await?;
                Ok(())
            })
            .await
    }
}

async fn finish(mut transaction: Transaction, new: &NewPassword) -> Result<(), Error> {
    links::void(&mut transaction, new.user_id, new.now).await?;
    for message in &new.messages {
        outbox::put(&mut transaction, message).await?;
    }
    transaction.commit().await?;
    Ok(())
}
