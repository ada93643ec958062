//! The transaction of a change of roles, grants or overrides. Such changes happen one after the other.

use std::sync::Arc;

use drystone_mesh::{clock::Timestamp, time::to_micros};
use drystone_store::{Transaction, outbox, run};
use uuid::Uuid;

use super::{
    UserStore,
    accounts::grants_column,
    rights::{self, overrides_column},
};
use crate::{
    Error, Status, follow_up,
    permission::ROLES_GRANT,
    role::{Actor, Definitions, Refused, RoleName, Subject},
};

/// Who makes a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorId {
    /// The operator of the mesh.
    Operator,
    /// A user.
    User(Uuid),
}

impl ActorId {
    /// The user, if it is one.
    #[must_use]
    pub fn user_id(self) -> Option<Uuid> {
        match self {
            Self::Operator => None,
            Self::User(id) => Some(id),
        }
    }
}

impl std::fmt::Display for ActorId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::User(id) => id.fmt(f),
        }
    }
}

/// What was saved, and the message that voids the tokens that it concerns, if it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved<T> {
    /// What was saved.
    pub value: T,
    /// The id of the message in the outbox.
    pub voiding: Option<Uuid>,
}

/// What a change is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChangeOf {
    Definitions,
    Grants,
}

/// A change that has begun: nobody else changes roles, grants or overrides until it ends.
pub(super) struct Change {
    pub(super) transaction: Transaction,
    /// As they were before.
    pub(super) definitions: Arc<Definitions>,
    pub(super) by: ActorId,
    pub(super) actor: Actor,
    pub(super) now: Timestamp,
}

impl UserStore {
    pub(super) async fn begin_change(&self, of: ChangeOf, by: ActorId, now: Timestamp) -> Result<Change, Error> {
        let mut transaction = self.db.begin().await?;
        let step = match of {
            ChangeOf::Definitions => 1_i64,
            ChangeOf::Grants => 0,
        };
        // The row is locked until the end of the transaction, also where its version stays.
        let version: i64 = run!(transaction.connection(), |connection| {
            sqlx::query_scalar(
                "UPDATE role_state
                 SET version = version + $1
                 WHERE id = 1
                 RETURNING version",
            )
            .bind(step)
            .fetch_all(connection)
            .await?
        })
        .pop()
        .ok_or(sqlx::Error::RowNotFound)?;
        let definitions = self.definitions_in(transaction.connection(), version - step).await?;
        let mut change = Change { transaction, definitions, by, actor: Actor::Operator, now };
        if let ActorId::User(id) = by {
            // An account that is gone or disabled may do nothing.
            let user = change.subject(id).await?.ok_or(Error::Refused(Refused::PermissionMissing(ROLES_GRANT)))?;
            change.actor = Actor::User(user);
        }
        Ok(change)
    }
}

impl Change {
    /// A user, and what they may do now. `None` if there is none.
    pub(super) async fn subject(&mut self, id: Uuid) -> Result<Option<Subject>, Error> {
        let row = run!(self.transaction.connection(), |connection| {
            sqlx::query_as::<_, (i16, Option<String>, Option<String>)>(concat!(
                "SELECT status, ",
                grants_column!(),
                ", ",
                overrides_column!(),
                " FROM account WHERE id = $1"
            ))
            .bind(id)
            .fetch_optional(connection)
            .await?
        });
        Ok(row.map(|(status, grants, overrides)| {
            let (grants, overrides) =
                (rights::read_grants(grants.as_deref()), rights::read_overrides(overrides.as_deref()));
            Subject::new(&self.definitions, id, Status::from_column(status), grants, overrides, self.now)
        }))
    }

    /// The number of users who are administrators for good, with every permission.
    pub(super) async fn administrators(&mut self) -> Result<i64, Error> {
        Ok(run!(self.transaction.connection(), |connection| {
            sqlx::query_scalar(
                "SELECT count(*)
                 FROM role_grant
                 WHERE role = 'admin'
                     AND expires_at IS NULL
                     AND EXISTS (SELECT 1 FROM account WHERE account.id = role_grant.user_id AND status = 1)
                     AND NOT EXISTS (
                         SELECT 1
                         FROM permission_override
                         WHERE permission_override.user_id = role_grant.user_id
                             AND is_denial
                             AND (permission_override.expires_at IS NULL OR permission_override.expires_at > $1)
                     )",
            )
            .bind(to_micros(self.now))
            .fetch_one(connection)
            .await?
        }))
    }

    /// Gives the account of a changed user another version.
    pub(super) async fn touch_account(&mut self, user_id: Uuid) -> Result<(), Error> {
        let now = self.now;
        run!(self.transaction.connection(), |connection| {
            sqlx::query("UPDATE account SET version = version + 1, updated_at = $2 WHERE id = $1")
                .bind(user_id)
                .bind(to_micros(now))
                .execute(connection)
                .await?;
        });
        Ok(())
    }

    /// What instances of the release before read: `admin` only for who is administrator for good and lacks nothing.
    async fn write_roles_of_release_before(&mut self, user_id: Uuid) -> Result<(), Error> {
        run!(self.transaction.connection(), |connection| {
            sqlx::query(
                "UPDATE account
                 SET roles = CASE
                     WHEN status = 1
                         AND EXISTS (
                             SELECT 1 FROM role_grant WHERE user_id = $1 AND role = 'admin' AND expires_at IS NULL
                         )
                         AND NOT EXISTS (SELECT 1 FROM permission_override WHERE user_id = $1 AND is_denial)
                     THEN 'admin member'
                     ELSE 'member'
                 END
                 WHERE id = $1",
            )
            .bind(user_id)
            .execute(connection)
            .await?;
        });
        Ok(())
    }

    /// Ends a change of one user, whose tokens become void: also if it changed nothing, since an earlier attempt may not have waited
    /// for that.
    pub(super) async fn commit_for_user<T>(mut self, user_id: Uuid, value: T) -> Result<Saved<T>, Error> {
        self.write_roles_of_release_before(user_id).await?;
        let message = follow_up::of_user(user_id, self.now);
        outbox::put(&mut self.transaction, &message).await?;
        self.transaction.commit().await?;
        Ok(Saved { value, voiding: Some(message.id) })
    }

    /// Ends a change of one user's account, whose sessions end.
    pub(super) async fn commit_and_end_sessions<T>(mut self, user_id: Uuid, value: T) -> Result<Saved<T>, Error> {
        self.write_roles_of_release_before(user_id).await?;
        let message = follow_up::with_sessions(user_id, self.now);
        outbox::put(&mut self.transaction, &message).await?;
        self.transaction.commit().await?;
        Ok(Saved { value, voiding: Some(message.id) })
    }

    /// Ends a change of roles. The tokens of all who have one of the roles in `concerned` become void.
    pub(super) async fn commit_for_roles<T>(mut self, concerned: &[RoleName], value: T) -> Result<Saved<T>, Error> {
        let message = (!concerned.is_empty()).then(|| follow_up::of_roles(concerned, self.now));
        if let Some(message) = &message {
            outbox::put(&mut self.transaction, message).await?;
        }
        self.transaction.commit().await?;
        Ok(Saved { value, voiding: message.map(|message| message.id) })
    }
}
