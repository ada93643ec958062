//! Changes of passwords, each with the messages that follow from it.

use drystone_mesh::{clock::Timestamp, email::Email, time::to_micros};
use drystone_store::{
    Transaction,
    outbox::{self, Message},
    run,
};
use uuid::Uuid;

use super::{AuthStore, challenges, factor_resets, factors, links};
use crate::{
    error::Error,
    link::{Link, Purpose},
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
    /// Replaces the hash `old`. Links to reset the password and to change the address become useless. Returns false without a change if
    /// the stored hash is another one, or no longer serves.
    pub async fn change_password(&self, old: &PasswordHash, new: &NewPassword) -> Result<bool, Error> {
        self.db.retry(|| self.change_password_once(old, new)).await
    }

    async fn change_password_once(&self, old: &PasswordHash, new: &NewPassword) -> Result<bool, Error> {
        let mut transaction = self.db.begin().await?;
        let updated = run!(transaction.connection(), |connection| {
            sqlx::query(
                "UPDATE credential
                 SET password_hash = $3, form = $4, updated_at = $5
                 WHERE user_id = $1 AND password_hash = $2 AND reset_required_at IS NULL",
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

    /// Sets the password of the user of a link, which serves once. Links to reset the password and to change the address become useless.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`].
    pub async fn reset_password(&self, link: &Link, new: &NewPassword) -> Result<(), Error> {
        self.db.retry(|| self.reset_password_once(link, new)).await
    }

    async fn reset_password_once(&self, link: &Link, new: &NewPassword) -> Result<(), Error> {
        let mut transaction = self.db.begin().await?;
        links::consume(&mut transaction, link, new.now).await?;
        // A user who was imported without a password has none yet.
        let updated = run!(transaction.connection(), |connection| {
            sqlx::query(
                "INSERT INTO credential (user_id, password_hash, form, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $4)
                 ON CONFLICT (user_id) DO UPDATE
                 SET password_hash = $2, form = $3, updated_at = $4, pending_since = NULL, reset_required_at = NULL, reset_email = NULL
                 WHERE credential.reset_email IS NULL OR credential.reset_email = $5",
            )
            .bind(new.user_id)
            .bind(new.hash.as_str())
            .bind(new.form.name())
            .bind(to_micros(new.now))
            .bind(key(link))
            .execute(connection)
            .await?
            .rows_affected()
        });
        // Its owner has taken the account back, and the link was sent to another address.
        if updated == 0 {
            return Err(Error::LinkInvalid);
        }
        finish(transaction, new).await
    }

    /// Uses a link, with what follows from it: a new link, if there is one, and messages. The other links of its user with these purposes
    /// become useless.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`].
    pub async fn use_link(
        &self,
        link: &Link,
        voids: &[Purpose],
        new: Option<&Link>,
        messages: &[Message],
        now: Timestamp,
    ) -> Result<(), Error> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                links::consume(&mut transaction, link, now).await?;
                for purpose in voids {
                    links::void(&mut transaction, link.user_id, *purpose, Timestamp::UNIX_EPOCH, now).await?;
                }
                if let Some(new) = new {
                    links::insert(&mut transaction, new).await?;
                }
                put_all(transaction, messages).await
            })
            .await
    }

    /// Uses a link by which an owner takes their account back: the password no longer serves, and neither do links that somebody else
    /// may have been sent since, nor second factors that were added since. A reset of the others that waits is cancelled.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`].
    pub async fn recover(&self, link: &Link, messages: &[Message], now: Timestamp) -> Result<(), Error> {
        self.db.retry(|| self.recover_once(link, messages, now)).await
    }

    async fn recover_once(&self, link: &Link, messages: &[Message], now: Timestamp) -> Result<(), Error> {
        let mut transaction = self.db.begin_exclusive().await?;
        links::consume(&mut transaction, link, now).await?;
        for purpose in [Purpose::PasswordReset, Purpose::EmailVerification, Purpose::EmailChange] {
            links::void(&mut transaction, link.user_id, purpose, Timestamp::UNIX_EPOCH, now).await?;
        }
        // Those from before were sent to addresses that the account had before, and serve.
        for purpose in [Purpose::EmailUndo, Purpose::SignInReport] {
            links::void(&mut transaction, link.user_id, purpose, link.created_at, now).await?;
        }
        run!(transaction.connection(), |connection| {
            sqlx::query(
                "UPDATE credential
                 SET reset_required_at = $2, reset_email = $3, recovered_at = $2, updated_at = $2
                 WHERE user_id = $1",
            )
            .bind(link.user_id)
            .bind(to_micros(now))
            .bind(key(link))
            .execute(connection)
            .await?;
        });
        challenges::void(&mut transaction, link.user_id).await?;
        factors::forget_since(&mut transaction, link.user_id, link.followed_at()).await?;
        factor_resets::cancel(&mut transaction, link.user_id).await?;
        put_all(transaction, messages).await
    }

    /// Makes the password of a user useless, until they choose a new one by a link.
    pub async fn require_reset(&self, user_id: Uuid, now: Timestamp) -> sqlx::Result<()> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "UPDATE credential SET reset_required_at = $2 WHERE user_id = $1 AND reset_required_at IS NULL",
                    )
                    .bind(user_id)
                    .bind(to_micros(now))
                    .execute(connection)
                    .await?;
                });
                challenges::void(&mut transaction, user_id).await?;
                transaction.commit().await
            })
            .await
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
    for purpose in [Purpose::PasswordReset, Purpose::EmailChange] {
        links::void(&mut transaction, new.user_id, purpose, Timestamp::UNIX_EPOCH, new.now).await?;
    }
    challenges::void(&mut transaction, new.user_id).await?;
    put_all(transaction, &new.messages).await
}

/// The address of a link in its normal form.
fn key(link: &Link) -> Option<String> {
    link.email.as_deref().and_then(|email| Email::parse(email).ok()).map(|email| email.key())
}

/// Stores messages in this transaction, and commits it.
pub(super) async fn put_all(mut transaction: Transaction, messages: &[Message]) -> Result<(), Error> {
    for message in messages {
        outbox::put(&mut transaction, message).await?;
    }
    transaction.commit().await?;
    Ok(())
}
