//! Roles, grants and overrides in the store, on both engines.

use std::{any::Any, time::Duration};

use chrono::TimeDelta;
use drystone_mesh::clock::{Clock, Timestamp};
use drystone_store::{Db, run};
use drystone_user::{
    DisplayName, Email, Error, NewAccount, Profile, Status, UserStore,
    role::{
        Effect, Effective, Grant, InvalidRole, MAX_GRANTS, MAX_OVERRIDES, Override, Permission, Refused, Role,
        RoleName, evaluation::active_roles,
    },
    store::{ActorId, RoleChange},
};
use uuid::Uuid;

use crate::database::{Database, on_each_engine};

const DECLARED: [&str; 7] =
    ["roles:grant", "roles:read", "roles:write", "notes:read:any", "notes:read:own", "notes:write", "users:write"];

struct Fixture {
    store: UserStore,
    db: Db,
    clock: Clock,
    _guard: Box<dyn Any>,
}

fn permission(name: &str, by: Option<&str>) -> Permission {
    Permission { name: name.to_owned(), description: "Test.".to_owned(), registered_by: by.map(str::to_owned) }
}

fn role_name(name: &str) -> RoleName {
    name.parse().unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

impl Fixture {
    fn new((db, guard): Database) -> Self {
        let clock = Clock::manual(Clock::system().now());
        let declared = DECLARED.iter().map(|name| permission(name, None)).collect();
        Self { store: UserStore::new(db.clone(), declared), db, clock, _guard: guard }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn user(&self, roles: &[&str]) -> Uuid {
        let id = Uuid::now_v7();
        let email = Email::parse(&format!("{id}@example.com")).unwrap();
        let profile = Profile::new(DisplayName::parse("Ada").unwrap());
        self.store.create(NewAccount { id, email, profile }, self.now()).await.unwrap();
        for role in roles {
            self.grant(ActorId::Operator, id, role).await.unwrap();
        }
        id
    }

    async fn grant(&self, by: ActorId, user: Uuid, role: &str) -> Result<(), Error> {
        let grant = Grant { role: role_name(role), expires_at: None };
        self.store.grant_role(by, user, &grant, self.now()).await.map(drop)
    }

    async fn revoke(&self, by: ActorId, user: Uuid, role: &str) -> Result<(), Error> {
        self.store.revoke_role(by, user, &role_name(role), self.now()).await.map(drop)
    }

    async fn role(&self, name: &str, level: u16, permissions: &[&str], inherits: &[&str]) -> Result<Role, Error> {
        let role = Role {
            name: role_name(name),
            description: String::new(),
            level,
            inherits: inherits.iter().map(|name| role_name(name)).collect(),
            permissions: names(permissions),
            version: 1,
            created_at: self.now(),
            updated_at: self.now(),
        };
        Ok(self.store.create_role(ActorId::Operator, &role, self.now()).await?.value)
    }

    async fn except(&self, by: ActorId, user: Uuid, permission: &str, effect: Effect) -> Result<(), Error> {
        let exception = Override { permission: permission.to_owned(), effect, expires_at: None };
        self.store.set_override(by, user, &exception, "", self.now()).await.map(drop)
    }

    async fn permissions(&self, user: Uuid) -> Vec<String> {
        let rights = self.store.rights(user).await.unwrap().unwrap();
        rights.evaluate(self.now()).token_permissions(&rights.definitions)
    }

    /// The kinds and contents of the messages in the outbox.
    async fn messages(&self) -> Vec<(String, String)> {
        let rows: Vec<(String, Vec<u8>)> = run!(self.db.reader(), |db| {
            sqlx::query_as("SELECT kind, payload FROM outbox").fetch_all(db).await.unwrap()
        });
        rows.into_iter().map(|(kind, payload)| (kind, String::from_utf8(payload).unwrap())).collect()
    }
}

async fn the_built_in_roles_are_there(fixture: Fixture) {
    let definitions = fixture.store.definitions().await.unwrap();
    let levels: Vec<_> = definitions.roles().map(|role| (role.name.to_string(), role.level)).collect();
    assert_eq!(levels, [("admin".to_owned(), 1000), ("manager".to_owned(), 500), ("member".to_owned(), 1)]);
    assert!(definitions.roles().all(Role::is_built_in));
    let user = fixture.user(&["manager"]).await;
    assert_eq!(fixture.permissions(user).await, ["roles:grant", "roles:read", "roles:write", "users:write"]);
    let admin = fixture.user(&["admin"]).await;
    let all = ["notes:read:any", "notes:write", "roles:grant", "roles:read", "roles:write", "users:write"];
    assert_eq!(fixture.permissions(admin).await, all);
}

async fn grants_and_overrides_are_read_as_they_were_written(fixture: Fixture) {
    fixture.role("editor", 200, &["notes:write"], &[]).await.unwrap();
    let (user, admin) = (fixture.user(&[]).await, fixture.user(&["admin"]).await);
    let (by, now) = (ActorId::User(admin), fixture.now());
    let end = Some(now + TimeDelta::minutes(1));
    let grant = Grant { role: role_name("editor"), expires_at: end };
    let saved = fixture.store.grant_role(by, user, &grant, now).await.unwrap().value;
    assert_eq!((saved.granted_by.as_str(), saved.granted_at), (admin.to_string().as_str(), now));
    let exception = Override { permission: "notes:read:own".to_owned(), effect: Effect::Grant, expires_at: end };
    let set = fixture.store.set_override(by, user, &exception, "a, b c", now).await.unwrap().value;
    fixture.except(by, user, "roles:read", Effect::Deny).await.unwrap();
    let (grants, overrides) = fixture.store.records(user).await.unwrap();
    assert_eq!((grants, &overrides[0]), (vec![saved], &set));
    assert_eq!(set.reason, "a, b c");

    let rights = fixture.store.rights(user).await.unwrap().unwrap();
    assert_eq!(rights.grants, std::slice::from_ref(&grant));
    assert_eq!(rights.overrides.iter().find(|one| one.effect == Effect::Grant), Some(&exception));
    assert_eq!((rights.overrides.len(), rights.status), (2, Status::Active));
    assert_eq!(rights.evaluate(now).expires_at, end);
    let account = fixture.store.find(user).await.unwrap().unwrap();
    assert_eq!(account.grants, [grant]);
    let (by_email, is_verified) = fixture.store.rights_by_email(&account.email).await.unwrap().unwrap();
    assert_eq!((by_email.user_id, by_email.evaluate(now), is_verified), (user, rights.evaluate(now), false));
    let all = fixture.store.rights_of_all(&[user, admin, Uuid::now_v7()]).await.unwrap();
    assert_eq!(all.len(), 2);
    let of_user = all.iter().find(|rights| rights.user_id == user).unwrap();
    assert_eq!(of_user.evaluate(now), rights.evaluate(now));

    assert_eq!(fixture.permissions(user).await, ["notes:read:own", "notes:write"]);
    fixture.clock.advance(Duration::from_mins(1));
    assert!(fixture.permissions(user).await.is_empty(), "both have expired");
    assert_eq!(active_roles(&rights.grants, fixture.now()), ["member"]);
    fixture.store.remove_override(by, user, "roles:read", fixture.now()).await.unwrap();
    fixture.revoke(by, user, "editor").await.unwrap();
    let (grants, overrides) = fixture.store.records(user).await.unwrap();
    assert_eq!((grants.len(), overrides.len()), (0, 1));
}

async fn a_repeated_grant_changes_nothing_and_voids_again(fixture: Fixture) {
    let user = fixture.user(&["manager"]).await;
    let before = fixture.store.find(user).await.unwrap().unwrap();
    let sent = fixture.messages().await.len();
    fixture.clock.advance(Duration::from_secs(1));
    fixture.grant(ActorId::Operator, user, "manager").await.unwrap();
    assert_eq!(fixture.store.find(user).await.unwrap().unwrap(), before);
    assert_eq!(fixture.messages().await.len(), sent + 1);
    let (grants, _) = fixture.store.records(user).await.unwrap();
    assert!(grants[0].granted_at < fixture.now());
}

async fn what_concerns_nobody_or_does_not_exist_is_refused(fixture: Fixture) {
    let user = fixture.user(&[]).await;
    let operator = ActorId::Operator;
    assert!(matches!(fixture.grant(operator, Uuid::now_v7(), "manager").await, Err(Error::NotFound)));
    assert!(matches!(fixture.grant(operator, user, "gone").await, Err(Error::RoleNotFound)));
    assert!(matches!(fixture.revoke(operator, user, "gone").await, Err(Error::RoleNotFound)));
    for changed in [fixture.grant(operator, user, "member").await, fixture.revoke(operator, user, "member").await] {
        assert!(matches!(changed, Err(Error::Everybody)));
    }
    let unknown = fixture.except(operator, user, "gone:gone", Effect::Deny).await;
    assert!(matches!(unknown, Err(Error::UnknownPermission(name)) if name == "gone:gone"));
    // A user without an account, and one who may nothing.
    for actor in [Uuid::now_v7(), user] {
        let refused = fixture.grant(ActorId::User(actor), fixture.user(&[]).await, "manager").await;
        assert!(matches!(refused, Err(Error::Refused(Refused::PermissionMissing(_)))), "{refused:?}");
    }
    assert!(fixture.messages().await.is_empty(), "nothing was changed");
    assert_eq!(fixture.store.find(user).await.unwrap().unwrap().version, 1);
}

/// Whatever the token of the actor still says.
async fn an_actor_may_do_what_they_may_now(fixture: Fixture) {
    let (actor, user) = (fixture.user(&[]).await, fixture.user(&[]).await);
    fixture.role("editor", 200, &[], &[]).await.unwrap();
    let by = ActorId::User(actor);
    let until = Some(fixture.now() + TimeDelta::minutes(1));
    let manager = Grant { role: role_name("manager"), expires_at: until };
    fixture.store.grant_role(ActorId::Operator, actor, &manager, fixture.now()).await.unwrap();
    let editor = Grant { role: role_name("editor"), expires_at: until };
    fixture.store.grant_role(by, user, &editor, fixture.now()).await.unwrap();
    let longer = fixture.grant(by, user, "editor").await;
    assert!(matches!(longer, Err(Error::Refused(Refused::Temporary))), "{longer:?}");
    fixture.clock.advance(Duration::from_mins(1));
    for refused in [fixture.grant(by, user, "editor").await, fixture.revoke(by, user, "editor").await] {
        assert!(matches!(refused, Err(Error::Refused(Refused::PermissionMissing(_)))), "{refused:?}");
    }
    fixture.grant(ActorId::Operator, actor, "manager").await.unwrap();
    fixture.except(ActorId::Operator, actor, "roles:grant", Effect::Deny).await.unwrap();
    let refused = fixture.grant(by, user, "editor").await;
    assert!(matches!(refused, Err(Error::Refused(Refused::PermissionMissing(_)))), "{refused:?}");
    let oneself = fixture.store.remove_override(by, actor, "roles:grant", fixture.now()).await;
    assert!(matches!(oneself, Err(Error::Refused(_))));
}

async fn the_last_administrator_stays_one(fixture: Fixture) {
    let (one, other) = (fixture.user(&["admin"]).await, fixture.user(&["admin"]).await);
    fixture.revoke(ActorId::User(one), other, "admin").await.unwrap();
    let until = Some(fixture.now() + TimeDelta::minutes(1));
    let temporary = Grant { role: role_name("admin"), expires_at: until };
    // One who is administrator for a time, or who lacks a permission, is not enough.
    fixture.store.grant_role(ActorId::Operator, other, &temporary, fixture.now()).await.unwrap();
    let lacking = fixture.user(&["admin"]).await;
    fixture.except(ActorId::Operator, lacking, "roles:grant", Effect::Deny).await.unwrap();
    let last = [
        fixture.revoke(ActorId::Operator, one, "admin").await,
        fixture.revoke(ActorId::User(other), one, "admin").await,
        fixture.store.grant_role(ActorId::Operator, one, &temporary, fixture.now()).await.map(drop),
        fixture.except(ActorId::Operator, one, "notes:write", Effect::Deny).await,
        fixture.store.set_roles(one, &[], fixture.now()).await.map(drop),
    ];
    for refused in last {
        assert!(matches!(refused, Err(Error::LastAdministrator)), "{refused:?}");
    }
    let account = fixture.store.find(one).await.unwrap().unwrap();
    assert_eq!(active_roles(&account.grants, fixture.now()), ["admin", "member"]);
    fixture.grant(ActorId::User(one), other, "admin").await.unwrap();
    fixture.revoke(ActorId::User(other), one, "admin").await.unwrap();
}

async fn of_two_administrators_who_demote_each_other_one_stays(fixture: Fixture) {
    for _ in 0..5 {
        let (one, other) = (fixture.user(&["admin"]).await, fixture.user(&["admin"]).await);
        let demote = |by, user| {
            let (store, now) = (fixture.store.clone(), fixture.now());
            tokio::spawn(
                async move { store.revoke_role(ActorId::User(by), user, &role_name("admin"), now).await.map(drop) },
            )
        };
        let (first, second) = tokio::join!(demote(one, other), demote(other, one));
        let succeeded = [first.unwrap(), second.unwrap()].iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(succeeded, 1);
        let mut left = Vec::new();
        for user in [one, other] {
            let account = fixture.store.find(user).await.unwrap().unwrap();
            left.extend((account.grants.len() == 1).then_some(user));
        }
        assert_eq!(left.len(), 1);
        // So that the next round begins without an administrator.
        run!(fixture.db.writer(), |db| {
            sqlx::query("DELETE FROM role_grant").execute(db).await.unwrap();
        });
    }
}

async fn concurrent_grants_and_revokes_are_all_done(fixture: Fixture) {
    let user = fixture.user(&[]).await;
    for number in 0..8 {
        fixture.role(&format!("role{number}"), 10, &[], &[]).await.unwrap();
    }
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let (store, now) = (fixture.store.clone(), fixture.now());
            tokio::spawn(async move {
                let role = role_name(&format!("role{number}"));
                let grant = Grant { role: role.clone(), expires_at: None };
                store.grant_role(ActorId::Operator, user, &grant, now).await.unwrap();
                if number % 2 == 0 {
                    store.revoke_role(ActorId::Operator, user, &role, now).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let account = fixture.store.find(user).await.unwrap().unwrap();
    assert_eq!(active_roles(&account.grants, fixture.now()), ["member", "role1", "role3", "role5", "role7"]);
    assert_eq!(account.version, 13);
    assert_eq!(fixture.messages().await.len(), 12);
}

async fn a_changed_role_concerns_those_that_inherit_it(fixture: Fixture) {
    fixture.role("reader", 100, &["notes:read:own"], &[]).await.unwrap();
    fixture.role("editor", 200, &["notes:write"], &["reader"]).await.unwrap();
    let user = fixture.user(&["editor"]).await;
    assert_eq!(fixture.permissions(user).await, ["notes:read:own", "notes:write"]);
    let update = async |name: &str, change: RoleChange, version| {
        fixture.store.update_role(ActorId::Operator, &role_name(name), &change, version, fixture.now()).await
    };
    let change = |permissions: &[&str]| RoleChange { permissions: Some(names(permissions)), ..RoleChange::default() };
    let saved = update("reader", change(&["notes:read:any"]), Some(1)).await.unwrap();
    assert_eq!((saved.value.version, saved.voiding.is_some()), (2, true));
    assert_eq!(fixture.permissions(user).await, ["notes:read:any", "notes:write"]);
    let message = ("void_role_tokens".to_owned(), "editor reader".to_owned());
    assert_eq!(fixture.messages().await.iter().filter(|sent| **sent == message).count(), 1);

    assert!(matches!(update("reader", change(&[]), Some(1)).await, Err(Error::Stale)));
    assert!(matches!(update("gone", change(&[]), None).await, Err(Error::RoleNotFound)));
    let unknown = update("reader", change(&["gone:gone"]), None).await;
    assert!(matches!(unknown, Err(Error::InvalidRole(InvalidRole::UnknownPermission(_)))));
    let cycle = RoleChange { inherits: Some(vec![role_name("editor")]), level: Some(300), ..RoleChange::default() };
    assert!(matches!(update("reader", cycle, None).await, Err(Error::InvalidRole(InvalidRole::Cycle(_)))));
    // Nobody's permissions have changed.
    let description = RoleChange { description: Some("Reads.".to_owned()), ..RoleChange::default() };
    let saved = update("reader", description.clone(), None).await.unwrap();
    assert_eq!((saved.value.version, saved.value.description.as_str(), saved.voiding), (3, "Reads.", None));
    let again = update("reader", description, None).await.unwrap();
    assert!(again.value.version == 3 && again.voiding.is_some(), "it waits for the message of the earlier change");
    assert!(matches!(fixture.role("reader", 5, &[], &[]).await, Err(Error::RoleExists)));
}

async fn a_role_in_use_is_deleted_by_force_only(fixture: Fixture) {
    fixture.role("reader", 100, &["notes:read:own"], &[]).await.unwrap();
    fixture.role("editor", 200, &["notes:write"], &["reader"]).await.unwrap();
    let user = fixture.user(&["editor"]).await;
    let delete = async |name: &str, version, force| {
        fixture.store.delete_role(ActorId::Operator, &role_name(name), version, force, fixture.now()).await.map(drop)
    };
    for used in ["reader", "editor"] {
        assert!(matches!(delete(used, None, false).await, Err(Error::RoleInUse)));
    }
    assert!(matches!(delete("reader", Some(7), true).await, Err(Error::Stale)));
    for built_in in ["manager", "member", "admin"] {
        assert!(matches!(delete(built_in, None, true).await, Err(Error::Refused(_))));
    }
    delete("reader", Some(1), true).await.unwrap();
    assert_eq!(fixture.permissions(user).await, ["notes:write"]);
    assert!(fixture.messages().await.iter().any(|(_, roles)| roles == "editor reader"));
    delete("editor", None, true).await.unwrap();
    assert!(fixture.permissions(user).await.is_empty());
    assert!(fixture.store.find(user).await.unwrap().unwrap().grants.is_empty());
    assert!(matches!(delete("editor", None, true).await, Err(Error::RoleNotFound)));
    fixture.role("editor", 5, &[], &[]).await.unwrap();
    delete("editor", None, false).await.unwrap();
}

async fn products_register_permissions(fixture: Fixture) {
    let admin = fixture.user(&["admin"]).await;
    let register = async |workload: &str, names: &[&str]| {
        let permissions: Vec<_> = names.iter().map(|name| permission(name, Some(workload))).collect();
        fixture.store.register_permissions(workload, &permissions, fixture.now()).await
    };
    register("orders", &["requests:read", "shifts:write:own"]).await.unwrap();
    assert!(fixture.permissions(admin).await.contains(&"requests:read".to_owned()));
    let version = fixture.store.definitions().await.unwrap().version;
    register("orders", &["requests:read"]).await.unwrap();
    assert_eq!(fixture.store.definitions().await.unwrap().version, version, "nothing has changed");
    fixture.role("planner", 100, &["shifts:write:own"], &[]).await.unwrap();
    let taken = register("other", &["requests:read"]).await;
    assert!(matches!(taken, Err(Error::PermissionExists { by: Some(by), .. }) if by == "orders"));
    let declared = register("orders", &["new:one", "notes:write"]).await;
    assert!(matches!(declared, Err(Error::PermissionExists { by: None, .. })));
    assert!(fixture.store.definitions().await.unwrap().permissions().iter().all(|known| known.name != "new:one"));
    // A role of a release before names what nobody declares any more.
    for change in [
        "UPDATE role SET permissions = 'old:old' WHERE name = 'planner'",
        "UPDATE role_state SET version = version + 1",
    ] {
        run!(fixture.db.writer(), |db| {
            sqlx::query(change).execute(db).await.unwrap();
        });
    }
    let dormant = register("orders", &["old:old"]).await;
    assert!(matches!(dormant, Err(Error::PermissionDormant(name)) if name == "old:old"));
    // All together fit into a token.
    let long: Vec<_> =
        (0..60).map(|number| format!("resource-with-a-name:action-with-a-longer-name-{number:010}")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    register("orders", &long).await.unwrap();
    let more: Vec<_> = long.iter().map(|name| name.replace("resource", "another")).collect();
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    assert!(matches!(register("orders", &more).await, Err(Error::TooManyPermissions { size }) if size > 4096));
}

async fn a_user_has_a_bounded_number_of_roles_and_overrides(fixture: Fixture) {
    let user = fixture.user(&[]).await;
    let permissions: Vec<_> =
        (0..=MAX_OVERRIDES).map(|number| permission(&format!("a:p{number}"), Some("orders"))).collect();
    fixture.store.register_permissions("orders", &permissions, fixture.now()).await.unwrap();
    for number in 0..=MAX_GRANTS {
        let name = format!("role{number}");
        fixture.role(&name, 10, &[], &[]).await.unwrap();
        let granted = fixture.grant(ActorId::Operator, user, &name).await;
        assert_eq!(granted.is_ok(), number < MAX_GRANTS, "{granted:?}");
    }
    for number in 0..=MAX_OVERRIDES {
        let set = fixture.except(ActorId::Operator, user, &format!("a:p{number}"), Effect::Grant).await;
        assert_eq!(set.is_ok(), number < MAX_OVERRIDES, "{set:?}");
    }
}

/// A disabled account has no permission, and what disables it is bound as roles are.
async fn an_account_is_disabled_by_who_is_above_it(fixture: Fixture) {
    let (admin, manager, user) =
        (fixture.user(&["admin"]).await, fixture.user(&["manager"]).await, fixture.user(&["manager"]).await);
    let set =
        async |by, user, status| fixture.store.set_disabled(by, user, status == Status::Disabled, fixture.now()).await;
    for (by, whom) in [(manager, admin), (manager, user), (manager, manager), (admin, admin), (user, manager)] {
        let refused = set(ActorId::User(by), whom, Status::Disabled).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }
    let last = set(ActorId::Operator, admin, Status::Disabled).await;
    assert!(matches!(last, Err(Error::LastAdministrator)), "{last:?}");
    let missing = set(ActorId::Operator, Uuid::now_v7(), Status::Disabled).await;
    assert!(matches!(missing, Err(Error::NotFound)));

    let before = fixture.store.find(user).await.unwrap().unwrap().version;
    let disabled = set(ActorId::User(admin), user, Status::Disabled).await.unwrap();
    assert_eq!((disabled.value.status, disabled.value.version), (Status::Disabled, before + 1));
    assert!(fixture.messages().await.contains(&("end_user_sessions".to_owned(), user.to_string())));
    assert!(fixture.permissions(user).await.is_empty());
    let rights = fixture.store.rights(user).await.unwrap().unwrap();
    assert_eq!((rights.status, rights.evaluate(fixture.now())), (Status::Disabled, Effective::default()));
    let refused = fixture.grant(ActorId::User(user), fixture.user(&[]).await, "member").await;
    assert!(refused.is_err());
    let refused = fixture.except(ActorId::User(user), fixture.user(&[]).await, "roles:read", Effect::Grant).await;
    assert!(matches!(refused, Err(Error::Refused(Refused::PermissionMissing(_)))), "{refused:?}");
    assert_eq!(set(ActorId::User(admin), user, Status::Disabled).await.unwrap().value, disabled.value);

    // A disabled administrator is none.
    let other = fixture.user(&["admin"]).await;
    set(ActorId::Operator, other, Status::Disabled).await.unwrap();
    let last = fixture.revoke(ActorId::Operator, admin, "admin").await;
    assert!(matches!(last, Err(Error::LastAdministrator)), "{last:?}");
    set(ActorId::User(admin), other, Status::Active).await.unwrap();
    fixture.revoke(ActorId::User(other), admin, "admin").await.unwrap();
    set(ActorId::User(other), user, Status::Active).await.unwrap();
    assert_eq!(fixture.permissions(user).await, ["roles:grant", "roles:read", "roles:write", "users:write"]);
}

/// Two instances: each has the change of the other at once.
async fn another_instance_sees_a_changed_role_at_once(fixture: Fixture) {
    let declared = DECLARED.iter().map(|name| permission(name, None)).collect();
    let other = UserStore::new(fixture.db.clone(), declared);
    fixture.role("editor", 200, &["notes:write"], &[]).await.unwrap();
    let user = fixture.user(&["editor"]).await;
    let seen = async || {
        let rights = other.rights(user).await.unwrap().unwrap();
        rights.evaluate(fixture.now()).token_permissions(&rights.definitions)
    };
    assert_eq!(seen().await, ["notes:write"]);
    let change = RoleChange { permissions: Some(names(&["notes:read:own"])), ..RoleChange::default() };
    fixture.store.update_role(ActorId::Operator, &role_name("editor"), &change, None, fixture.now()).await.unwrap();
    assert_eq!(seen().await, ["notes:read:own"]);
}

on_each_engine! {
    the_built_in_roles_are_there,
    grants_and_overrides_are_read_as_they_were_written,
    a_repeated_grant_changes_nothing_and_voids_again,
    what_concerns_nobody_or_does_not_exist_is_refused,
    an_actor_may_do_what_they_may_now,
    the_last_administrator_stays_one,
    of_two_administrators_who_demote_each_other_one_stays,
    concurrent_grants_and_revokes_are_all_done,
    a_changed_role_concerns_those_that_inherit_it,
    a_role_in_use_is_deleted_by_force_only,
    products_register_permissions,
    a_user_has_a_bounded_number_of_roles_and_overrides,
    an_account_is_disabled_by_who_is_above_it,
    another_instance_sees_a_changed_role_at_once,
}
