//! Each way to get more than one has.

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
fn second_factors_are_reset_by_who_is_above_with_the_permission_and_never_ones_own() {
    let definitions = Definitions::new(
        1,
        permissions("users:write factors:reset"),
        vec![
            role("admin", 1000, "", ""),
            role("manager", 500, "users:write", ""),
            role("support", 400, "factors:reset", ""),
            role("editor", 200, "", ""),
            role("member", 1, "", ""),
        ],
    );
    let of = |role: &str| subject(&definitions, &[grant(role, None)], &[]);
    let may = |actor: &str, user: &str| Actor::User(of(actor)).may_reset_factors(&definitions, &of(user));
    assert_eq!(may("support", "editor"), Ok(()));
    assert_eq!(may("admin", "admin"), Ok(()));
    for above in ["support", "manager", "admin"] {
        assert_eq!(may("support", above), Err(Refused::UserLevel), "{above}");
    }
    assert_eq!(may("manager", "editor"), Err(Refused::PermissionMissing(FACTORS_RESET)));
    for role in ["admin", "support"] {
        let (actor, same) = (of(role), of(role));
        let same = Subject { id: actor.id, ..same };
        assert_eq!(Actor::User(actor).may_reset_factors(&definitions, &same), Err(Refused::OwnFactors), "{role}");
    }
    Actor::Operator.may_reset_factors(&definitions, &of("admin")).unwrap();
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
    for (until, expected) in [(at(60), Ok(())), (at(61), Err(Refused::Temporary)), (None, Err(Refused::Temporary))] {
        assert_eq!(temporary().may_grant(&definitions, &friend, reader, until), expected, "{until:?}");
        let new = Override { expires_at: until, ..exception("notes:read", Effect::Grant, None) };
        assert_eq!(temporary().may_override(&definitions, &friend, "notes:read", Some(&new)), expected, "{until:?}");
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
