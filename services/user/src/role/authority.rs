//! Who may change which roles, grants and overrides.
//!
//! Nobody gives what they do not have: neither to others by a grant, an override or a role, nor to themselves by a role that they
//! have. All is decided by what the acting user may do now, not by their token.

use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

use super::{
    ADMIN, ADMIN_LEVEL, Definitions, Effect, Effective, Grant, MEMBER, Override, PermissionSet, RoleName,
    definitions::PreparedRole, evaluation,
};
use crate::{
    Status,
    permission::{FACTORS_RESET, ROLES_GRANT, ROLES_WRITE, USERS_WRITE},
};

/// Who acts.
#[derive(Debug)]
pub enum Actor {
    /// The operator of the mesh, who may do everything except for removing the last administrator.
    Operator,
    /// A user.
    User(Subject),
}

/// A user, and what they may do now.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The user.
    pub id: Uuid,
    /// Whether the user can sign in.
    pub status: Status,
    /// What they may do.
    pub effective: Effective,
    /// The roles that they have, without expired ones, with those that these inherit, and without `member`.
    pub roles: Vec<RoleName>,
    grants: Vec<Grant>,
    overrides: Vec<Override>,
    now: Timestamp,
}

/// Why an actor may not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The actor lacks the permission for such changes.
    #[error("this requires the permission `{0}`")]
    PermissionMissing(&'static str),
    /// Nobody changes what they have themselves.
    #[error("you cannot change your own roles and overrides, nor a role that you have; ask another administrator")]
    Oneself,
    /// Nobody resets their own second factors: who has stolen a session would.
    #[error(
        "you cannot reset your own second factors; remove them in a session with one, or ask another administrator"
    )]
    OwnFactors,
    /// The user has a role of the actor's level or a higher one.
    #[error("the user has a role of your level or a higher one")]
    UserLevel,
    /// The role is of the actor's level or a higher one.
    #[error("the role `{0}` is of your level or a higher one, or a role inherits it that is")]
    RoleLevel(RoleName),
    /// A role would get the actor's level or a higher one.
    #[error("the level of a role that you change is lower than your own, which is {0}")]
    Level(u16),
    /// The actor does not have the permission.
    #[error("you do not have the permission `{0}` yourself")]
    NotHeld(String),
    /// The actor would give for longer than they have it.
    #[error("you have this for a time only, and give nothing that lasts longer")]
    Temporary,
    /// Only administrators change what everybody has.
    #[error("only an administrator changes `member`, which everybody has, and the roles that it inherits")]
    Everybody,
    /// The role `admin` is fixed.
    #[error("`admin` has every permission, and cannot be changed")]
    Admin,
    /// The built-in roles stay.
    #[error("the built-in role `{0}` cannot be deleted, nor its level changed")]
    BuiltIn(RoleName),
}

impl Actor {
    fn user(&self, definitions: &Definitions, permission: &'static str) -> Result<Option<&Subject>, Refused> {
        let Self::User(user) = self else { return Ok(None) };
        user.needs(definitions, permission)?;
        Ok(Some(user))
    }

    /// Checks what the actor may do now, and then what they may do until `until`, which is for good if it is absent.
    fn checked_until(
        &self,
        definitions: &Definitions,
        permission: &'static str,
        until: Option<Timestamp>,
        check: impl Fn(&Subject) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let Some(actor) = self.user(definitions, permission)? else { return Ok(()) };
        check(actor)?;
        let lasting = actor.until(definitions, until);
        lasting.needs(definitions, permission).and_then(|()| check(&lasting)).map_err(|_| Refused::Temporary)
    }

    /// Whether the actor may grant this role to a user until `until`, or for good.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn may_grant(
        &self,
        definitions: &Definitions,
        user: &Subject,
        role: &PreparedRole,
        until: Option<Timestamp>,
    ) -> Result<(), Refused> {
        self.checked_until(definitions, ROLES_GRANT, until, |actor| {
            actor.is_above(user)?;
            actor.is_above_role(role)?;
            actor.holds_all(definitions, role)
        })
    }

    /// Whether the actor may revoke this role from a user.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn may_revoke(
        &self,
        definitions: &Definitions,
        user: &Subject,
        role: &PreparedRole,
    ) -> Result<(), Refused> {
        let Some(actor) = self.user(definitions, ROLES_GRANT)? else { return Ok(()) };
        actor.is_above(user)?;
        actor.is_above_role(role)
    }

    /// Whether the actor may replace the override of this permission by `new`, or remove it. To remove a denial is to give: also what
    /// implies the permission.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn may_override(
        &self,
        definitions: &Definitions,
        user: &Subject,
        permission: &str,
        new: Option<&Override>,
    ) -> Result<(), Refused> {
        let had_denial = user.overrides.iter().any(|one| one.permission == permission && one.effect == Effect::Deny);
        let check = |actor: &Subject| {
            actor.is_above(user)?;
            let stronger = definitions.id(permission).and_then(|id| definitions.implied_by(id)).filter(|_| had_denial);
            for needed in [Some(permission), stronger.map(|id| definitions.name(id))].into_iter().flatten() {
                if !actor.effective.has(definitions, needed) {
                    return Err(Refused::NotHeld(needed.to_owned()));
                }
            }
            Ok(())
        };
        let is_lasting_denial = new.is_some_and(|new| new.effect == Effect::Deny && new.expires_at.is_none());
        let until = match new {
            // Only takes.
            _ if is_lasting_denial || (new.is_none() && !had_denial) => {
                return match self.user(definitions, ROLES_GRANT)? {
                    Some(actor) => check(actor),
                    None => Ok(()),
                };
            }
            Some(new) if !had_denial => new.expires_at,
            // The end of a denial is for good.
            _ => None,
        };
        self.checked_until(definitions, ROLES_GRANT, until, check)
    }

    /// Whether the actor may change, disable and delete the account of a user.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn may_manage(&self, definitions: &Definitions, user: &Subject) -> Result<(), Refused> {
        match self.user(definitions, USERS_WRITE)? {
            Some(actor) => actor.is_above(user),
            None => Ok(()),
        }
    }

    /// Whether the actor may reset the second factors of a user.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn may_reset_factors(&self, definitions: &Definitions, user: &Subject) -> Result<(), Refused> {
        match self.user(definitions, FACTORS_RESET)? {
            Some(actor) if actor.id == user.id => Err(Refused::OwnFactors),
            Some(actor) => actor.is_above(user),
            None => Ok(()),
        }
    }

    /// Whether the actor may change a role: from its state in `before` to that in `after`. It is new if it is not in `before`, and
    /// deleted if it is not in `after`.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn may_write(&self, before: &Definitions, after: &Definitions, name: &RoleName) -> Result<(), Refused> {
        let (old, new) = (before.role(name.as_str()), after.role(name.as_str()));
        if name.as_str() == ADMIN {
            return Err(Refused::Admin);
        }
        if old.is_some_and(|old| old.role.is_built_in() && new.is_none_or(|new| new.role.level != old.role.level)) {
            return Err(Refused::BuiltIn(name.clone()));
        }
        if matches!(self, Self::Operator) {
            // `admin` has all permissions at a level of its own.
            return if new.is_some_and(|new| new.role.level >= ADMIN_LEVEL) {
                Err(Refused::Level(ADMIN_LEVEL))
            } else {
                Ok(())
            };
        }
        let affected = before.affected_by(name.as_str());
        // A role is for good.
        self.checked_until(before, ROLES_WRITE, None, |actor| {
            // The role, and those whose holders the change concerns as well.
            for affected in &affected {
                if before.role(affected.as_str()).is_some_and(|role| role.role.level >= actor.effective.level) {
                    return Err(Refused::RoleLevel(affected.clone()));
                }
            }
            if new.is_some_and(|new| new.role.level >= actor.effective.level) {
                return Err(Refused::Level(actor.effective.level));
            }
            if affected.iter().any(|affected| affected.as_str() == MEMBER) && !actor.effective.is_admin {
                return Err(Refused::Everybody);
            }
            if actor.roles.contains(name) {
                return Err(Refused::Oneself);
            }
            let Some(new) = new else { return Ok(()) };
            let had = |permission: &String| old.is_some_and(|old| old.unknown.contains(permission));
            if let Some(unknown) = new.unknown.iter().find(|permission| !had(permission)) {
                return Err(Refused::NotHeld(unknown.clone()));
            }
            let nothing = PermissionSet::default();
            let old = old.map_or(&nothing, |old| &old.permissions);
            match new.permissions.without(old).find(|id| !actor.effective.permissions.contains(*id)) {
                None => Ok(()),
                Some(id) => Err(Refused::NotHeld(after.name(id).to_owned())),
            }
        })
    }
}

impl Subject {
    /// A user with these grants and overrides.
    pub(crate) fn new(
        definitions: &Definitions,
        id: Uuid,
        status: Status,
        grants: Vec<Grant>,
        overrides: Vec<Override>,
        now: Timestamp,
    ) -> Self {
        let effective = evaluation::evaluate(definitions, &grants, &overrides, now);
        let active = grants.iter().filter(|grant| grant.is_active(now));
        let held = active.filter_map(|grant| definitions.role(grant.role.as_str()));
        let roles = held.flat_map(|role| role.closure.iter().cloned()).collect();
        Self { id, status, effective, roles, grants, overrides, now }
    }

    /// The same user with what they have until this time at least, or for good.
    fn until(&self, definitions: &Definitions, until: Option<Timestamp>) -> Self {
        let lasts = |end: Option<Timestamp>| end.is_none_or(|end| until.is_some_and(|until| until <= end));
        let grants = self.grants.iter().filter(|grant| lasts(grant.expires_at)).cloned().collect();
        // A denial holds now, however long.
        let overrides = self.overrides.iter().filter(|one| one.effect == Effect::Deny || lasts(one.expires_at));
        let lasting = Self::new(definitions, self.id, self.status, grants, overrides.cloned().collect(), self.now);
        Self { roles: self.roles.clone(), ..lasting }
    }

    fn needs(&self, definitions: &Definitions, permission: &'static str) -> Result<(), Refused> {
        if self.status == Status::Active && self.effective.has(definitions, permission) {
            Ok(())
        } else {
            Err(Refused::PermissionMissing(permission))
        }
    }

    /// Administrators also change other administrators.
    fn is_above(&self, user: &Self) -> Result<(), Refused> {
        if self.id == user.id {
            return Err(Refused::Oneself);
        }
        if self.effective.is_admin || user.effective.level < self.effective.level {
            Ok(())
        } else {
            Err(Refused::UserLevel)
        }
    }

    fn is_above_role(&self, role: &PreparedRole) -> Result<(), Refused> {
        let is_of_both = self.effective.is_admin && role.role.name.as_str() == ADMIN;
        if is_of_both || role.role.level < self.effective.level {
            Ok(())
        } else {
            Err(Refused::RoleLevel(role.role.name.clone()))
        }
    }

    /// Also those that nobody declares, as far as this process knows: another one may know them.
    fn holds_all(&self, definitions: &Definitions, role: &PreparedRole) -> Result<(), Refused> {
        if let Some(unknown) = role.unknown.first() {
            return Err(Refused::NotHeld(unknown.clone()));
        }
        match role.permissions.without(&self.effective.permissions).next() {
            None => Ok(()),
            Some(id) => Err(Refused::NotHeld(definitions.name(id).to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
