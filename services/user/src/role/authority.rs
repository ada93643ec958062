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
use crate::{Status, permission::USERS_WRITE};

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

/// The permission to grant and revoke roles, and to set overrides.
pub const ROLES_GRANT: &str = "roles:grant";
/// The permission to change roles.
pub const ROLES_WRITE: &str = "roles:write";

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

    /// Whether the actor may disable and enable the account of a user.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn may_disable(&self, definitions: &Definitions, user: &Subject) -> Result<(), Refused> {
        match self.user(definitions, USERS_WRITE)? {
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
mod tests {
    use super::*;
    use crate::role::{
        definitions::tests::{permissions, role},
        evaluation::tests::{exception, grant, now},
    };

    fn definitions() -> Definitions {
        Definitions::new(
            1,
            permissions("roles:grant roles:write notes:read notes:write shifts:write secrets:read"),
            vec![
                role("admin", 1000, "", ""),
                role("manager", 500, "roles:grant roles:write notes:read notes:write", ""),
                role("director", 600, "secrets:read", "base"),
                role("editor", 200, "notes:write", "reader"),
                role("reader", 100, "notes:read", ""),
                role("base", 50, "", ""),
                role("planner", 300, "shifts:write", ""),
                role("member", 1, "", ""),
            ],
        )
    }

    fn subject(definitions: &Definitions, grants: &[Grant], overrides: &[Override]) -> Subject {
        Subject::new(definitions, Uuid::now_v7(), Status::Active, grants.to_vec(), overrides.to_vec(), now())
    }

    fn with(roles: &[&str], overrides: &[Override]) -> Subject {
        let grants: Vec<_> = roles.iter().map(|role| grant(role, None)).collect();
        subject(&definitions(), &grants, overrides)
    }

    fn name(name: &str) -> RoleName {
        name.parse().unwrap()
    }

    /// Each way to get more than one has.
    #[test]
    fn nobody_grants_above_themselves() {
        let definitions = definitions();
        let denied = exception("notes:write", Effect::Deny, None);
        let extra = exception("secrets:read", Effect::Grant, None);
        let held = exception("roles:grant", Effect::Grant, None);
        let level = |role| Err(Refused::RoleLevel(name(role)));
        let not_held = |permission: &str| Err(Refused::NotHeld(permission.to_owned()));
        let no_permission = Err(Refused::PermissionMissing(ROLES_GRANT));
        let cases = [
            (with(&["manager"], &[]), with(&[], &[]), "editor", Ok(())),
            (with(&["manager"], &[]), with(&["planner"], &[]), "editor", Ok(())),
            (with(&["admin"], &[]), with(&["admin"], &[]), "manager", Ok(())),
            (with(&["admin"], &[]), with(&[], &[]), "admin", Ok(())),
            // A role above, of the same level, or with a permission that one does not have.
            (with(&["manager"], &[]), with(&[], &[]), "admin", level("admin")),
            (with(&["manager"], &[]), with(&[], &[]), "director", level("director")),
            (with(&["manager"], &[]), with(&[], &[]), "manager", level("manager")),
            (with(&["manager"], &[]), with(&[], &[]), "planner", not_held("shifts:write")),
            // A user above, or of the same level.
            (with(&["manager"], &[]), with(&["manager"], &[]), "editor", Err(Refused::UserLevel)),
            (with(&["manager"], &[]), with(&["admin"], &[]), "editor", Err(Refused::UserLevel)),
            (with(&["manager"], &[]), with(&["director"], &[]), "base", Err(Refused::UserLevel)),
            // What a denial took, one does not give.
            (with(&["manager"], std::slice::from_ref(&denied)), with(&[], &[]), "editor", not_held("notes:write")),
            (with(&["admin"], std::slice::from_ref(&denied)), with(&[], &[]), "editor", not_held("notes:write")),
            // A permission by override gives no level.
            (with(&["reader"], &[held.clone(), extra]), with(&[], &[]), "director", level("director")),
            (with(&[], &[held]), with(&[], &[]), "reader", Err(Refused::UserLevel)),
            // Without the permission to grant.
            (with(&["director"], &[]), with(&[], &[]), "base", no_permission.clone()),
            (with(&[], &[]), with(&[], &[]), "base", no_permission.clone()),
            // An expired grant is none.
            (subject(&definitions, &[grant("manager", Some(0))], &[]), with(&[], &[]), "reader", no_permission),
        ];
        for (actor, user, role, expected) in cases {
            let role = definitions.role(role).unwrap();
            let shown = format!("{actor:?} grants {} to {user:?}", role.role.name);
            assert_eq!(Actor::User(actor).may_grant(&definitions, &user, role, None), expected, "{shown}");
        }
    }

    #[test]
    fn nobody_changes_themselves() {
        let definitions = definitions();
        for role in ["admin", "manager"] {
            let (actor, mut same) = (with(&[role], &[]), with(&[role], &[]));
            same.id = actor.id;
            let (actor, reader) = (Actor::User(actor), definitions.role("reader").unwrap());
            assert_eq!(actor.may_grant(&definitions, &same, reader, None), Err(Refused::Oneself));
            assert_eq!(actor.may_revoke(&definitions, &same, reader), Err(Refused::Oneself));
            assert_eq!(actor.may_override(&definitions, &same, "notes:read", None), Err(Refused::Oneself));
        }
    }

    #[test]
    fn an_override_needs_the_permission_and_a_user_below() {
        let definitions = definitions();
        let may = |actor: Subject, user: Subject, permission| {
            let new = exception(permission, Effect::Grant, None);
            Actor::User(actor).may_override(&definitions, &user, permission, Some(&new))
        };
        assert_eq!(may(with(&["manager"], &[]), with(&["editor"], &[]), "notes:write"), Ok(()));
        let not_held = Err(Refused::NotHeld("secrets:read".to_owned()));
        assert_eq!(may(with(&["manager"], &[]), with(&["editor"], &[]), "secrets:read"), not_held);
        assert_eq!(may(with(&["manager"], &[]), with(&["admin"], &[]), "notes:write"), Err(Refused::UserLevel));
        assert_eq!(may(with(&["admin"], &[]), with(&["admin"], &[]), "notes:write"), Ok(()));
        let denied = exception("secrets:read", Effect::Deny, None);
        let not_held = Err(Refused::NotHeld("secrets:read".to_owned()));
        assert_eq!(may(with(&["admin"], &[denied]), with(&[], &[]), "secrets:read"), not_held);
    }

    #[test]
    fn a_role_is_revoked_by_who_is_above_it_and_its_holder() {
        let definitions = definitions();
        let may = |actor: &[&str], user: &[&str], role| {
            Actor::User(with(actor, &[])).may_revoke(&definitions, &with(user, &[]), definitions.role(role).unwrap())
        };
        // Also with a permission that the actor does not have: it is taken, not given.
        assert_eq!(may(&["manager"], &["planner"], "planner"), Ok(()));
        assert_eq!(may(&["manager"], &["admin"], "admin"), Err(Refused::UserLevel));
        assert_eq!(may(&["manager"], &["director"], "base"), Err(Refused::UserLevel));
        assert_eq!(may(&["admin"], &["admin"], "admin"), Ok(()));
        assert_eq!(may(&["editor"], &["reader"], "reader"), Err(Refused::PermissionMissing(ROLES_GRANT)));
    }

    /// Each way to get more by a role.
    #[test]
    fn nobody_writes_a_role_above_themselves() {
        let definitions = definitions();
        let not_held = |permission: &str| Err(Refused::NotHeld(permission.to_owned()));
        let above = |role| Err(Refused::RoleLevel(name(role)));
        let manager = || with(&["manager"], &[]);
        let denied = exception("notes:write", Effect::Deny, None);
        let cases = [
            (manager(), role("writer", 400, "notes:write", "reader"), Ok(())),
            (manager(), role("editor", 499, "", ""), Ok(())),
            (manager(), role("writer", 500, "", ""), Err(Refused::Level(500))),
            (manager(), role("editor", 501, "notes:write", ""), Err(Refused::Level(500))),
            (manager(), role("editor", 200, "notes:write secrets:read", ""), not_held("secrets:read")),
            // By inheritance.
            (manager(), role("helper", 300, "notes:read", "planner"), not_held("shifts:write")),
            (manager(), role("director", 600, "", ""), above("director")),
            (manager(), role("manager", 500, "notes:read secrets:read", ""), above("manager")),
            // A role below that a role above inherits.
            (manager(), role("base", 50, "notes:read", ""), above("director")),
            // A role that one has: a temporary role would make it permanent.
            (with(&["manager", "editor"], &[]), role("editor", 200, "notes:read", ""), Err(Refused::Oneself)),
            (with(&["manager", "editor"], &[]), role("reader", 100, "notes:write", ""), Err(Refused::Oneself)),
            (manager(), role("member", 1, "notes:read", ""), Err(Refused::Everybody)),
            (with(&["admin"], &[]), role("member", 1, "notes:read", ""), Ok(())),
            (with(&["admin"], &[denied]), role("reader", 100, "notes:write", ""), not_held("notes:write")),
            (with(&["admin"], &[]), role("admin", 1000, "", ""), Err(Refused::Admin)),
            (with(&["admin"], &[]), role("manager", 400, "", ""), Err(Refused::BuiltIn(name("manager")))),
            (with(&["editor"], &[]), role("writer", 5, "", ""), Err(Refused::PermissionMissing(ROLES_WRITE))),
        ];
        for (actor, changed, expected) in cases {
            let (shown, name) = (format!("{actor:?} writes {changed:?}"), changed.name.clone());
            let after = definitions.with(&changed).unwrap();
            assert_eq!(Actor::User(actor).may_write(&definitions, &after, &name), expected, "{shown}");
        }
    }

    #[test]
    fn the_operator_may_do_everything_but_change_admin() {
        let definitions = definitions();
        let admin = definitions.role("admin").unwrap();
        Actor::Operator.may_grant(&definitions, &with(&[], &[]), admin, None).unwrap();
        Actor::Operator.may_revoke(&definitions, &with(&["admin"], &[]), admin).unwrap();
        Actor::Operator.may_override(&definitions, &with(&["admin"], &[]), "notes:read", None).unwrap();
        let write = |changed| {
            let after = definitions.with(&changed).unwrap();
            Actor::Operator.may_write(&definitions, &after, &name("director"))
        };
        assert_eq!(write(role("director", 999, "secrets:read", "")), Ok(()));
        assert_eq!(write(role("director", 1000, "", "")), Err(Refused::Level(1000)));
        let after = definitions.with(&role("admin", 1000, "", "")).unwrap();
        assert_eq!(Actor::Operator.may_write(&definitions, &after, &name("admin")), Err(Refused::Admin));
    }

    /// What one has for a time, one gives for that time at most: neither to a friend nor into a role.
    #[test]
    fn nobody_gives_for_longer_than_they_have() {
        let definitions = definitions();
        let friend = with(&[], &[]);
        let reader = definitions.role("reader").unwrap();
        let at = |seconds| Some(now() + chrono::TimeDelta::seconds(seconds));
        let temporary = || Actor::User(subject(&definitions, &[grant("manager", Some(60))], &[]));
        for (until, expected) in [(at(60), Ok(())), (at(61), Err(Refused::Temporary)), (None, Err(Refused::Temporary))]
        {
            assert_eq!(temporary().may_grant(&definitions, &friend, reader, until), expected, "{until:?}");
            let new = Override { expires_at: until, ..exception("notes:read", Effect::Grant, None) };
            assert_eq!(
                temporary().may_override(&definitions, &friend, "notes:read", Some(&new)),
                expected,
                "{until:?}"
            );
        }
        let after = definitions.with(&role("writer", 5, "notes:write", "")).unwrap();
        assert_eq!(temporary().may_write(&definitions, &after, &name("writer")), Err(Refused::Temporary));
        // What takes only, and what one has for good as well.
        let denial = exception("notes:read", Effect::Deny, None);
        temporary().may_override(&definitions, &friend, "notes:read", Some(&denial)).unwrap();
        temporary().may_revoke(&definitions, &friend, reader).unwrap();
        let both = subject(&definitions, &[grant("manager", None), grant("planner", Some(60))], &[]);
        let (both, planner) = (Actor::User(both), definitions.role("planner").unwrap());
        both.may_grant(&definitions, &friend, reader, None).unwrap();
        both.may_grant(&definitions, &friend, planner, at(60)).unwrap();
        assert_eq!(both.may_grant(&definitions, &friend, planner, None), Err(Refused::Temporary));
        // A denied user, whose denial would end.
        let denied = with(&[], &[denial]);
        assert_eq!(temporary().may_override(&definitions, &denied, "notes:read", None), Err(Refused::Temporary));
        let shorter = exception("notes:read", Effect::Deny, Some(1));
        let shortened = temporary().may_override(&definitions, &denied, "notes:read", Some(&shorter));
        assert_eq!(shortened, Err(Refused::Temporary));
    }

    /// A denial of `own` takes `any` as well, which its end would give back.
    #[test]
    fn the_end_of_a_denial_gives_what_it_took() {
        let definitions = Definitions::new(
            1,
            permissions("roles:grant notes:read:any notes:read:own"),
            vec![
                role("manager", 500, "roles:grant notes:read:own", ""),
                role("chief", 500, "roles:grant notes:read:any", ""),
                role("reader", 100, "notes:read:any", ""),
            ],
        );
        let of = |role: &str| Actor::User(subject(&definitions, &[grant(role, None)], &[]));
        let denial = exception("notes:read:own", Effect::Deny, None);
        let denied = subject(&definitions, &[grant("reader", None)], std::slice::from_ref(&denial));
        let any = Err(Refused::NotHeld("notes:read:any".to_owned()));
        for new in [
            None,
            Some(exception("notes:read:own", Effect::Grant, None)),
            Some(exception("notes:read:own", Effect::Deny, Some(1))),
        ] {
            assert_eq!(of("manager").may_override(&definitions, &denied, "notes:read:own", new.as_ref()), any);
            of("chief").may_override(&definitions, &denied, "notes:read:own", new.as_ref()).unwrap();
        }
    }

    #[test]
    fn a_role_that_everybody_inherits_or_that_names_what_nobody_declares_is_not_for_managers() {
        let definitions = Definitions::new(
            1,
            permissions("roles:grant roles:write notes:read"),
            vec![
                role("admin", 1000, "", ""),
                role("manager", 500, "roles:grant roles:write notes:read", ""),
                role("base", 1, "", ""),
                role("member", 1, "", "base"),
                role("dormant", 5, "payroll:read", ""),
            ],
        );
        let of = |role: &str| Actor::User(subject(&definitions, &[grant(role, None)], &[]));
        let after = definitions.with(&role("base", 1, "notes:read", "")).unwrap();
        assert_eq!(of("manager").may_write(&definitions, &after, &name("base")), Err(Refused::Everybody));
        of("admin").may_write(&definitions, &after, &name("base")).unwrap();
        let not_held = Err(Refused::NotHeld("payroll:read".to_owned()));
        let (friend, dormant) = (with(&[], &[]), definitions.role("dormant").unwrap());
        assert_eq!(of("manager").may_grant(&definitions, &friend, dormant, None), not_held);
        let after = definitions.with(&role("heir", 6, "", "dormant")).unwrap();
        assert_eq!(of("manager").may_write(&definitions, &after, &name("heir")), not_held);
    }
}
