//! Roles, and permissions that products register.

use drystone_mesh::{clock::Timestamp, time::to_micros};
use drystone_store::run;
use uuid::Uuid;

use super::{
    ActorId, Saved, UserStore,
    change::{Change, ChangeOf},
};
use crate::{
    Error, follow_up,
    role::{
        Definitions, Permission, Role, RoleName,
        definitions::{MAX_TOKEN_PERMISSIONS, token_size},
    },
};

/// The fields of a role to be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleChange {
    /// The description.
    pub description: Option<String>,
    /// The level.
    pub level: Option<u16>,
    /// The inherited roles.
    pub inherits: Option<Vec<RoleName>>,
    /// The permissions.
    pub permissions: Option<Vec<String>>,
}

impl UserStore {
    /// Creates a role.
    ///
    /// # Errors
    /// [`Error::RoleExists`], [`Error::InvalidRole`], [`Error::Refused`].
    pub async fn create_role(&self, by: ActorId, role: &Role, now: Timestamp) -> Result<Saved<Role>, Error> {
        self.db.retry(|| self.create_role_once(by, role, now)).await
    }

    /// Changes a role, if it is at this version.
    ///
    /// # Errors
    /// [`Error::RoleNotFound`], [`Error::Stale`], [`Error::InvalidRole`], [`Error::Refused`].
    pub async fn update_role(
        &self,
        by: ActorId,
        name: &RoleName,
        change: &RoleChange,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Saved<Role>, Error> {
        self.db.retry(|| self.update_role_once(by, name, change, version, now)).await
    }

    /// Deletes a role, if it is at this version. With `force` also if users have it or roles inherit it.
    ///
    /// # Errors
    /// [`Error::RoleNotFound`], [`Error::RoleInUse`], [`Error::Stale`], [`Error::Refused`].
    pub async fn delete_role(
        &self,
        by: ActorId,
        name: &RoleName,
        version: Option<i64>,
        force: bool,
        now: Timestamp,
    ) -> Result<Saved<()>, Error> {
        self.db.retry(|| self.delete_role_once(by, name, version, force, now)).await
    }

    /// Registers permissions for a workload, or changes their descriptions.
    ///
    /// # Errors
    /// [`Error::PermissionExists`], [`Error::TooManyPermissions`].
    pub async fn register_permissions(
        &self,
        workload: &str,
        permissions: &[Permission],
        now: Timestamp,
    ) -> Result<(), Error> {
        self.db.retry(|| self.register_permissions_once(workload, permissions, now)).await
    }
}

/// Transactions that may be retried as a whole.
impl UserStore {
    async fn create_role_once(&self, by: ActorId, role: &Role, now: Timestamp) -> Result<Saved<Role>, Error> {
        let mut change = self.begin_change(ChangeOf::Definitions, by, now).await?;
        if change.definitions.role(role.name.as_str()).is_some() {
            return Err(Error::RoleExists);
        }
        let role = Role { version: 1, created_at: now, updated_at: now, ..role.clone() };
        let after = change.definitions.with(&role)?;
        change.actor.may_write(&change.definitions, &after, &role.name)?;
        change.write_role(&role).await?;
        change.commit_for_roles(&[], role).await
    }

    async fn update_role_once(
        &self,
        by: ActorId,
        name: &RoleName,
        wanted: &RoleChange,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Saved<Role>, Error> {
        let mut change = self.begin_change(ChangeOf::Definitions, by, now).await?;
        let before = change.definitions.clone();
        let old = before.role(name.as_str()).ok_or(Error::RoleNotFound)?.role.clone();
        if version.is_some_and(|version| version != old.version) {
            return Err(Error::Stale);
        }
        let RoleChange { description, level, inherits, permissions } = wanted.clone();
        let mut role = Role {
            description: description.unwrap_or_else(|| old.description.clone()),
            level: level.unwrap_or(old.level),
            inherits: inherits.unwrap_or_else(|| old.inherits.clone()),
            permissions: permissions.unwrap_or_else(|| old.permissions.clone()),
            ..old.clone()
        };
        let after = before.with(&role)?;
        change.actor.may_write(&before, &after, name)?;
        if role == old {
            // An earlier attempt may not have waited until the tokens are void.
            return Ok(Saved { value: old, voiding: change.pending_of_roles().await? });
        }
        (role.version, role.updated_at) = (old.version + 1, now);
        change.write_role(&role).await?;
        let grants = |role: &Role| (role.level, role.inherits.clone(), role.permissions.clone());
        let concerned = if grants(&role) == grants(&old) { Vec::new() } else { before.affected_by(name.as_str()) };
        change.commit_for_roles(&concerned, role).await
    }

    async fn delete_role_once(
        &self,
        by: ActorId,
        name: &RoleName,
        version: Option<i64>,
        force: bool,
        now: Timestamp,
    ) -> Result<Saved<()>, Error> {
        let mut change = self.begin_change(ChangeOf::Definitions, by, now).await?;
        let before = change.definitions.clone();
        let old = &before.role(name.as_str()).ok_or(Error::RoleNotFound)?.role;
        if version.is_some_and(|version| version != old.version) {
            return Err(Error::Stale);
        }
        change.actor.may_write(&before, &without(&before, name), name)?;
        let heirs: Vec<_> = before.roles().filter(|role| role.inherits.contains(name)).cloned().collect();
        let is_granted = run!(change.transaction.connection(), |connection| {
            sqlx::query("SELECT 1 FROM role_grant WHERE role = $1 LIMIT 1")
                .bind(name.as_str())
                .fetch_optional(connection)
                .await?
                .is_some()
        });
        if !force && (is_granted || !heirs.is_empty()) {
            return Err(Error::RoleInUse);
        }
        for mut heir in heirs {
            heir.inherits.retain(|inherited| inherited != name);
            (heir.version, heir.updated_at) = (heir.version + 1, now);
            change.write_role(&heir).await?;
        }
        for delete in ["DELETE FROM role_grant WHERE role = $1", "DELETE FROM role WHERE name = $1"] {
            run!(change.transaction.connection(), |connection| {
                sqlx::query(delete).bind(name.as_str()).execute(connection).await?;
            });
        }
        change.commit_for_roles(&before.affected_by(name.as_str()), ()).await
    }

    async fn register_permissions_once(
        &self,
        workload: &str,
        permissions: &[Permission],
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut change = self.begin_change(ChangeOf::Definitions, ActorId::Operator, now).await?;
        let before = change.definitions.clone();
        let by_other = |wanted: &Permission| {
            let known = before.permissions().iter().find(|known| known.name == wanted.name)?;
            (known.registered_by.as_deref() != Some(workload)).then(|| known.clone())
        };
        if let Some(known) = permissions.iter().find_map(by_other) {
            return Err(Error::PermissionExists { name: known.name, by: known.registered_by });
        }
        // Who registers it would give it to all who have the role.
        let is_dormant = |wanted: &&Permission| {
            before.id(&wanted.name).is_none() && before.roles().any(|role| role.permissions.contains(&wanted.name))
        };
        if let Some(dormant) = permissions.iter().find(is_dormant) {
            return Err(Error::PermissionDormant(dormant.name.clone()));
        }
        let is_known = |wanted: &&Permission| before.permissions().contains(wanted);
        if permissions.iter().all(|wanted| is_known(&wanted)) {
            // Services do so at each start: no new version, which everybody would read.
            return Ok(());
        }
        let added = permissions.iter().filter(|wanted| before.id(&wanted.name).is_none());
        let all = before.permissions().iter().chain(added);
        let size = token_size(all.map(|permission| permission.name.as_str()));
        if size > MAX_TOKEN_PERMISSIONS {
            return Err(Error::TooManyPermissions { size });
        }
        for permission in permissions {
            run!(change.transaction.connection(), |connection| {
                sqlx::query(
                    "INSERT INTO permission (name, description, registered_by, created_at)
                     VALUES ($1, $2, $3, $4)
                     ON CONFLICT (name) DO UPDATE
                     SET description = $2",
                )
                .bind(permission.name.as_str())
                .bind(permission.description.as_str())
                .bind(workload)
                .bind(to_micros(now))
                .execute(connection)
                .await?;
            });
        }
        change.commit_for_roles(&[], ()).await.map(drop)
    }
}

fn without(definitions: &Definitions, name: &RoleName) -> Definitions {
    let roles = definitions.roles().filter(|role| role.name != *name).cloned().collect();
    Definitions::new(definitions.version, definitions.permissions().iter().cloned(), roles)
}

impl Change {
    /// The last message about roles that is not delivered yet.
    async fn pending_of_roles(&mut self) -> Result<Option<Uuid>, Error> {
        Ok(run!(self.transaction.connection(), |connection| {
            sqlx::query_scalar(
                "SELECT id FROM outbox WHERE key = $1 AND dead_at IS NULL ORDER BY sequence DESC LIMIT 1",
            )
            .bind(follow_up::ROLES)
            .fetch_optional(connection)
            .await?
        }))
    }

    async fn write_role(&mut self, role: &Role) -> Result<(), Error> {
        let names = |names: &[RoleName]| names.iter().map(RoleName::as_str).collect::<Vec<_>>().join(" ");
        let (inherits, permissions) = (names(&role.inherits), role.permissions.join(" "));
        run!(self.transaction.connection(), |connection| {
            sqlx::query(
                "INSERT INTO role (name, description, level, inherits, permissions, version, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (name) DO UPDATE
                 SET description = $2, level = $3, inherits = $4, permissions = $5, version = $6, updated_at = $8",
            )
            .bind(role.name.as_str())
            .bind(role.description.as_str())
            .bind(i64::from(role.level))
            .bind(inherits.as_str())
            .bind(permissions.as_str())
            .bind(role.version)
            .bind(to_micros(role.created_at))
            .bind(to_micros(role.updated_at))
            .execute(connection)
            .await?;
        });
        Ok(())
    }
}
