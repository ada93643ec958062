//! Roles of users, and overrides.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::run;
use uuid::Uuid;

use super::{
    ActorId, Saved, UserStore,
    change::{Change, ChangeOf},
};
use crate::{
    Error, Status,
    role::{
        Effect, Grant, GrantRecord, MAX_GRANTS, MAX_OVERRIDES, MEMBER, Override, OverrideRecord, RoleName, Subject,
    },
};

impl UserStore {
    /// Grants a role to a user, or changes the expiry of the grant.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::RoleNotFound`], [`Error::Everybody`], [`Error::Refused`], [`Error::LastAdministrator`],
    /// [`Error::TooMany`].
    pub async fn grant_role(
        &self,
        by: ActorId,
        user_id: Uuid,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<Saved<GrantRecord>, Error> {
        self.db.retry(|| self.grant_role_once(by, user_id, grant, now)).await
    }

    /// Revokes a role from a user. Succeeds if the user does not have it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::RoleNotFound`], [`Error::Everybody`], [`Error::Refused`], [`Error::LastAdministrator`].
    pub async fn revoke_role(
        &self,
        by: ActorId,
        user_id: Uuid,
        role: &RoleName,
        now: Timestamp,
    ) -> Result<Saved<()>, Error> {
        self.db.retry(|| self.revoke_role_once(by, user_id, role, now)).await
    }

    /// Replaces all roles of a user by these, without expiry. For the operator.
    ///
    /// # Errors
    /// As [`Self::grant_role`].
    pub async fn set_roles(&self, user_id: Uuid, roles: &[RoleName], now: Timestamp) -> Result<Saved<()>, Error> {
        self.db.retry(|| self.set_roles_once(user_id, roles, now)).await
    }

    /// Grants or denies a permission to a user. It replaces an override of the same permission.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::UnknownPermission`], [`Error::Refused`], [`Error::LastAdministrator`], [`Error::TooMany`].
    pub async fn set_override(
        &self,
        by: ActorId,
        user_id: Uuid,
        exception: &Override,
        reason: &str,
        now: Timestamp,
    ) -> Result<Saved<OverrideRecord>, Error> {
        self.db.retry(|| self.set_override_once(by, user_id, exception, reason, now)).await
    }

    /// Removes an override. Succeeds if there is none.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`].
    pub async fn remove_override(
        &self,
        by: ActorId,
        user_id: Uuid,
        permission: &str,
        now: Timestamp,
    ) -> Result<Saved<()>, Error> {
        self.db.retry(|| self.remove_override_once(by, user_id, permission, now)).await
    }
}

/// Transactions that may be retried as a whole.
impl UserStore {
    async fn grant_role_once(
        &self,
        by: ActorId,
        user_id: Uuid,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<Saved<GrantRecord>, Error> {
        let mut change = self.begin_change(ChangeOf::Grants, by, now).await?;
        let user = change.existing(user_id).await?;
        let definitions = change.definitions.clone();
        let role = definitions.role(grant.role.as_str()).ok_or(Error::RoleNotFound)?;
        if grant.role.as_str() == MEMBER {
            return Err(Error::Everybody);
        }
        change.actor.may_grant(&definitions, &user, role, grant.expires_at)?;
        let before = change.administrators().await?;
        if change.insert_grant(user_id, grant).await? {
            change.touch_account(user_id).await?;
        }
        change.bound("SELECT count(*) FROM role_grant WHERE user_id = $1", user_id, MAX_GRANTS, "roles").await?;
        // An expiry may have been put on the only grant without one.
        change.keep_an_administrator(before).await?;
        let record = change.grant_record(user_id, grant).await?;
        change.commit_for_user(user_id, record).await
    }

    async fn revoke_role_once(
        &self,
        by: ActorId,
        user_id: Uuid,
        role: &RoleName,
        now: Timestamp,
    ) -> Result<Saved<()>, Error> {
        let mut change = self.begin_change(ChangeOf::Grants, by, now).await?;
        let user = change.existing(user_id).await?;
        let definitions = change.definitions.clone();
        if role.as_str() == MEMBER {
            return Err(Error::Everybody);
        }
        let prepared = definitions.role(role.as_str()).ok_or(Error::RoleNotFound)?;
        change.actor.may_revoke(&definitions, &user, prepared)?;
        let before = change.administrators().await?;
        if change.delete_grant(user_id, role).await? {
            change.touch_account(user_id).await?;
        }
        change.keep_an_administrator(before).await?;
        change.commit_for_user(user_id, ()).await
    }

    async fn set_roles_once(&self, user_id: Uuid, roles: &[RoleName], now: Timestamp) -> Result<Saved<()>, Error> {
        let mut change = self.begin_change(ChangeOf::Grants, ActorId::Operator, now).await?;
        change.existing(user_id).await?;
        let definitions = change.definitions.clone();
        let before = change.administrators().await?;
        if roles.iter().any(|role| definitions.role(role.as_str()).is_none()) {
            return Err(Error::RoleNotFound);
        }
        let mut has_changed = false;
        for role in definitions.roles().filter(|role| role.name.as_str() != MEMBER) {
            has_changed |= if roles.contains(&role.name) {
                change.insert_grant(user_id, &Grant { role: role.name.clone(), expires_at: None }).await?
            } else {
                change.delete_grant(user_id, &role.name).await?
            };
        }
        if has_changed {
            change.touch_account(user_id).await?;
        }
        change.keep_an_administrator(before).await?;
        change.commit_for_user(user_id, ()).await
    }

    async fn set_override_once(
        &self,
        by: ActorId,
        user_id: Uuid,
        exception: &Override,
        reason: &str,
        now: Timestamp,
    ) -> Result<Saved<OverrideRecord>, Error> {
        let mut change = self.begin_change(ChangeOf::Grants, by, now).await?;
        let user = change.existing(user_id).await?;
        let definitions = change.definitions.clone();
        if definitions.id(&exception.permission).is_none() {
            return Err(Error::UnknownPermission(exception.permission.clone()));
        }
        change.actor.may_override(&definitions, &user, &exception.permission, Some(exception))?;
        let before = change.administrators().await?;
        let set_by = by.to_string();
        run!(change.transaction.connection(), |connection| {
            sqlx::query(
                "INSERT INTO permission_override (user_id, permission, is_denial, reason, set_by, set_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (user_id, permission) DO UPDATE
                 SET is_denial = $3, reason = $4, set_by = $5, set_at = $6, expires_at = $7",
            )
            .bind(user_id)
            .bind(exception.permission.as_str())
            .bind(exception.effect == Effect::Deny)
            .bind(reason)
            .bind(set_by.as_str())
            .bind(to_micros(now))
            .bind(exception.expires_at.map(to_micros))
            .execute(connection)
            .await?;
        });
        let count = "SELECT count(*) FROM permission_override WHERE user_id = $1";
        change.bound(count, user_id, MAX_OVERRIDES, "overrides").await?;
        change.keep_an_administrator(before).await?;
        change.touch_account(user_id).await?;
        let reason = reason.to_owned();
        change
            .commit_for_user(user_id, OverrideRecord { exception: exception.clone(), reason, set_by, set_at: now })
            .await
    }

    async fn remove_override_once(
        &self,
        by: ActorId,
        user_id: Uuid,
        permission: &str,
        now: Timestamp,
    ) -> Result<Saved<()>, Error> {
        let mut change = self.begin_change(ChangeOf::Grants, by, now).await?;
        let user = change.existing(user_id).await?;
        change.actor.may_override(&change.definitions, &user, permission, None)?;
        run!(change.transaction.connection(), |connection| {
            sqlx::query("DELETE FROM permission_override WHERE user_id = $1 AND permission = $2")
                .bind(user_id)
                .bind(permission)
                .execute(connection)
                .await?;
        });
        change.touch_account(user_id).await?;
        change.commit_for_user(user_id, ()).await
    }
}

impl Change {
    /// A user whose account is there and not deleted.
    async fn existing(&mut self, user_id: Uuid) -> Result<Subject, Error> {
        let user = self.subject(user_id).await?.ok_or(Error::NotFound)?;
        if user.status == Status::Deleted { Err(Error::Deleted) } else { Ok(user) }
    }

    /// Returns whether that changed anything.
    async fn insert_grant(&mut self, user_id: Uuid, grant: &Grant) -> Result<bool, Error> {
        let (by, now) = (self.by.to_string(), self.now);
        let changed = run!(self.transaction.connection(), |connection| {
            sqlx::query(
                "INSERT INTO role_grant (user_id, role, granted_by, granted_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (user_id, role) DO UPDATE
                 SET granted_by = $3, granted_at = $4, expires_at = $5
                 WHERE role_grant.expires_at IS DISTINCT FROM $5",
            )
            .bind(user_id)
            .bind(grant.role.as_str())
            .bind(by.as_str())
            .bind(to_micros(now))
            .bind(grant.expires_at.map(to_micros))
            .execute(connection)
            .await?
            .rows_affected()
        });
        Ok(changed > 0)
    }

    /// Who has made this grant, which exists.
    async fn grant_record(&mut self, user_id: Uuid, grant: &Grant) -> Result<GrantRecord, Error> {
        let (granted_by, granted_at): (String, i64) = run!(self.transaction.connection(), |connection| {
            sqlx::query_as("SELECT granted_by, granted_at FROM role_grant WHERE user_id = $1 AND role = $2")
                .bind(user_id)
                .bind(grant.role.as_str())
                .fetch_one(connection)
                .await?
        });
        Ok(GrantRecord { grant: grant.clone(), granted_by, granted_at: from_micros(granted_at) })
    }

    /// Returns whether that changed anything.
    async fn delete_grant(&mut self, user_id: Uuid, role: &RoleName) -> Result<bool, Error> {
        let deleted = run!(self.transaction.connection(), |connection| {
            sqlx::query("DELETE FROM role_grant WHERE user_id = $1 AND role = $2")
                .bind(user_id)
                .bind(role.as_str())
                .execute(connection)
                .await?
                .rows_affected()
        });
        Ok(deleted > 0)
    }

    /// Refuses the change if there was an administrator before, and is none any more.
    pub(super) async fn keep_an_administrator(&mut self, before: i64) -> Result<(), Error> {
        if before > 0 && self.administrators().await? == 0 { Err(Error::LastAdministrator) } else { Ok(()) }
    }

    async fn bound(&mut self, count: &'static str, user_id: Uuid, max: usize, what: &'static str) -> Result<(), Error> {
        let count: i64 = run!(self.transaction.connection(), |connection| {
            sqlx::query_scalar(count).bind(user_id).fetch_one(connection).await?
        });
        if usize::try_from(count).is_ok_and(|count| count <= max) { Ok(()) } else { Err(Error::TooMany { what, max }) }
    }
}
