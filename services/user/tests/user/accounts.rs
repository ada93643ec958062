//! Profiles, links and deletion in the store, on both engines.

use std::{any::Any, time::Duration};

use chrono::TimeDelta;
use drystone_mesh::{
    clock::{Clock, Timestamp},
    id,
};
use drystone_store::{
    Db,
    request_id::{self, Creation},
    run,
};
use drystone_user::{
    Account, DisplayName, Email, Error, NewAccount, Profile, ProfileChange, Status, UserStore,
    account::TelegramId,
    role::{Effect, Grant, Override, Permission, Refused},
    store::{ActorId, Import, ListPage, ListQuery},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::database::{Database, on_each_engine};

pub const RETENTION: Duration = Duration::from_hours(24);

pub struct Fixture {
    pub store: UserStore,
    pub db: Db,
    pub clock: Clock,
    _guard: Box<dyn Any>,
}

impl Fixture {
    pub fn new((db, guard): Database) -> Self {
        let clock = Clock::manual(Clock::system().now());
        let declared = ["users:read", "users:write", "roles:grant", "roles:read", "roles:write"]
            .map(|name| Permission { name: name.to_owned(), description: String::new(), registered_by: None });
        Self { store: UserStore::new(db.clone(), declared.to_vec()), db, clock, _guard: guard }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub async fn create(&self, email: &str, name: &str) -> Account {
        self.store.create(new(email, name, self.now()), self.now()).await.unwrap()
    }

    pub async fn user(&self, email: &str, role: &str) -> Uuid {
        let user = self.create(email, "Ada").await;
        let grant = Grant { role: role.parse().unwrap(), expires_at: None };
        self.store.grant_role(ActorId::Operator, user.id, &grant, self.now()).await.unwrap();
        user.id
    }

    pub async fn find(&self, id: Uuid) -> Account {
        self.store.find(id).await.unwrap().unwrap()
    }

    pub async fn delete(&self, by: ActorId, id: Uuid) -> Result<Account, Error> {
        Ok(self.store.delete(by, id, None, RETENTION, self.now()).await?.value)
    }

    /// The kinds and keys of the messages in the outbox, oldest first.
    pub async fn messages(&self) -> Vec<(String, String)> {
        run!(self.db.reader(), |db| {
            sqlx::query_as("SELECT kind, key FROM outbox ORDER BY sequence").fetch_all(db).await.unwrap()
        })
    }

    /// The local parts of the addresses of all pages of this size.
    pub async fn list(&self, query: &ListQuery, size: u32) -> Vec<String> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let listed = self.store.list(query, &ListPage { size, after }, self.now()).await.unwrap();
            let (mut rows, ends_at) = (listed.accounts, listed.ends_at);
            let is_last = rows.len() <= size as usize && ends_at.is_none();
            rows.truncate(size as usize);
            after = ends_at.or_else(|| rows.last().map(|(position, account)| (position.clone(), account.id)));
            all.extend(rows.into_iter().map(|(_, account)| account.email.key().split('@').next().unwrap().to_owned()));
            if is_last {
                return all;
            }
        }
    }
}

pub fn new(email: &str, name: &str, now: Timestamp) -> NewAccount {
    let profile = Profile::new(DisplayName::parse(name).unwrap());
    NewAccount { id: id::v7_at(now), email: Email::parse(email).unwrap(), profile }
}

pub fn import(email: &str, now: Timestamp) -> Import {
    Import {
        account: new(email, "Ada Lovelace", now),
        external_id: email.to_owned(),
        roles: Vec::new(),
        status: Status::Active,
        telegram_id: None,
        created_at: now,
        email_verified: false,
    }
}

async fn a_profile_is_read_as_it_was_written_and_changed_in_parts(fixture: Fixture) {
    let profile = Profile {
        given_name: "Ada".to_owned(),
        family_name: "Lovelace".to_owned(),
        phone: "+442071838750".to_owned(),
        locale: "en-GB".to_owned(),
        time_zone: "Europe/London".to_owned(),
        avatar: "https://example.com/ada.png".to_owned(),
        preferences: [("mail.digest".to_owned(), "weekly \"quoted\" é".to_owned())].into(),
        ..Profile::new(DisplayName::parse("Ada").unwrap())
    };
    let wanted = NewAccount { profile: profile.clone(), ..new("ada@example.com", "Ada", fixture.now()) };
    let created = fixture.store.create(wanted, fixture.now()).await.unwrap();
    assert_eq!(created.profile, profile);
    assert_eq!(fixture.find(created.id).await, created);

    let change = ProfileChange {
        phone: Some(String::new()),
        preferences: Some([("theme".to_owned(), "dark".to_owned())].into()),
        ..ProfileChange::default()
    };
    let by = ActorId::User(created.id);
    let changed = fixture.store.update_profile(by, created.id, &change, None, fixture.now()).await.unwrap();
    let expected = Profile { phone: String::new(), preferences: change.preferences.clone().unwrap(), ..profile };
    assert_eq!((&changed.profile, changed.version), (&expected, created.version + 1));
    let same = fixture.store.update_profile(by, created.id, &change, None, fixture.now()).await.unwrap();
    assert_eq!(same, changed);
}

async fn a_profile_is_changed_by_its_user_and_from_above(fixture: Fixture) {
    let admin = fixture.user("admin@example.com", "admin").await;
    let manager = fixture.user("manager@example.com", "manager").await;
    let (peer, user) =
        (fixture.user("peer@example.com", "manager").await, fixture.create("ada@example.com", "Ada").await.id);
    let change =
        |number: usize| ProfileChange { given_name: Some(format!("Ada {number}")), ..ProfileChange::default() };
    let update = async |by: Uuid, whom, number| {
        fixture.store.update_profile(ActorId::User(by), whom, &change(number), None, fixture.now()).await
    };
    for (number, (by, whom)) in
        [(user, user), (manager, user), (admin, manager), (admin, admin)].into_iter().enumerate()
    {
        update(by, whom, number).await.unwrap();
    }
    for (by, whom) in [(user, manager), (manager, peer), (manager, admin)] {
        let refused = update(by, whom, 9).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }
    let link = async |by, whom| fixture.store.set_telegram_id(by, whom, TelegramId::new(7), fixture.now()).await;
    for (by, whom) in [(user, manager), (manager, peer), (manager, admin)] {
        assert!(matches!(link(ActorId::User(by), whom).await, Err(Error::Refused(_))));
    }
    link(ActorId::User(manager), user).await.unwrap();
}

async fn a_telegram_user_is_linked_to_one_account(fixture: Fixture) {
    let (ada, bob) = (fixture.create("ada@example.com", "Ada").await, fixture.create("bob@example.com", "Bob").await);
    let link = async |user, telegram: i64| {
        fixture.store.set_telegram_id(ActorId::Operator, user, TelegramId::new(telegram), fixture.now()).await
    };
    let linked = link(ada.id, 5_000_000_000).await.unwrap();
    assert_eq!((linked.telegram_id, linked.version), (TelegramId::new(5_000_000_000), ada.version + 1));
    assert_eq!(link(ada.id, 5_000_000_000).await.unwrap(), linked);
    assert!(matches!(link(bob.id, 5_000_000_000).await, Err(Error::TelegramIdTaken)));
    let found = async || fixture.store.find_by_telegram_id(TelegramId::new(5_000_000_000).unwrap()).await.unwrap();
    assert_eq!(found().await.unwrap().id, ada.id);
    link(ada.id, 0).await.unwrap();
    assert_eq!(found().await, None);
    link(bob.id, 5_000_000_000).await.unwrap();
    assert!(matches!(link(Uuid::now_v7(), 6).await, Err(Error::NotFound)));
}

async fn a_repeated_creation_returns_the_account_that_it_created(fixture: Fixture) {
    let owner = Uuid::now_v7();
    let create = async |owner, request_id, email: &str| {
        let new = new(email, "Ada", fixture.now());
        let request = Creation { owner, request_id, resource: new.id, fingerprint: new.fingerprint() };
        fixture.store.create_for(new, Some(request), fixture.now()).await
    };
    let request_id = Uuid::now_v7();
    let first = create(owner, request_id, "ada@example.com").await.unwrap();
    assert_eq!(create(owner, request_id, "ada@example.com").await.unwrap(), first);
    assert!(matches!(create(owner, request_id, "bob@example.com").await, Err(Error::RequestIdReused)));
    assert!(matches!(create(Uuid::now_v7(), request_id, "ada@example.com").await, Err(Error::EmailTaken)));
    // A refused creation has not used its id.
    let second = Uuid::now_v7();
    assert!(matches!(create(owner, second, "ADA@example.com").await, Err(Error::EmailTaken)));
    create(owner, second, "bob@example.com").await.unwrap();

    fixture.delete(ActorId::Operator, first.id).await.unwrap();
    fixture.store.purge(ActorId::Operator, first.id, fixture.now()).await.unwrap();
    assert!(matches!(create(owner, request_id, "ada@example.com").await, Err(Error::NotFound)));
    request_id::forget(&fixture.db, fixture.now() + TimeDelta::seconds(1)).await.unwrap();
    assert_ne!(create(owner, request_id, "ada@example.com").await.unwrap().id, first.id);
}

async fn a_deleted_account_is_restored_as_it_was(fixture: Fixture) {
    let manager = fixture.user("manager@example.com", "manager").await;
    let user = fixture.create("ada@example.com", "Ada").await.id;
    fixture.store.set_disabled(ActorId::Operator, user, true, fixture.now()).await.unwrap();
    let before = fixture.find(user).await;

    let deleted = fixture.delete(ActorId::User(manager), user).await.unwrap();
    let deletion = deleted.deletion.unwrap();
    assert_eq!(
        (deleted.status, deletion.at, deletion.purge_at),
        (Status::Deleted, fixture.now(), fixture.now() + RETENTION)
    );
    assert_eq!(fixture.messages().await.last().unwrap(), &("end_user_sessions".to_owned(), user.to_string()));
    assert_eq!(fixture.store.rights(user).await.unwrap().unwrap().status, Status::Disabled);
    assert_eq!(fixture.delete(ActorId::User(manager), user).await.unwrap(), deleted);

    // Nobody else gets the address, and nothing else changes a deleted account.
    let grant = Grant { role: "manager".parse().unwrap(), expires_at: None };
    let refused = fixture.store.grant_role(ActorId::Operator, user, &grant, fixture.now()).await;
    assert!(matches!(refused, Err(Error::Deleted)));
    let taken = fixture.store.create(new("ADA@example.com", "Eve", fixture.now()), fixture.now()).await;
    assert!(matches!(taken, Err(Error::EmailTaken)));
    for is_disabled in [true, false] {
        let refused = fixture.store.set_disabled(ActorId::Operator, user, is_disabled, fixture.now()).await;
        assert!(matches!(refused, Err(Error::Deleted)));
    }
    let change = ProfileChange { given_name: Some("Eve".to_owned()), ..ProfileChange::default() };
    let refused = fixture.store.update_profile(ActorId::Operator, user, &change, None, fixture.now()).await;
    assert!(matches!(refused, Err(Error::Deleted)));

    let restored = fixture.store.undelete(ActorId::User(manager), user, fixture.now()).await.unwrap();
    assert_eq!(restored.value, Account { version: before.version + 2, updated_at: fixture.now(), ..before });
    assert!(restored.voiding.is_some());
    let again = fixture.store.undelete(ActorId::User(manager), user, fixture.now()).await.unwrap();
    assert_eq!((again.value, again.voiding), (restored.value, None));
}

async fn an_account_is_deleted_by_who_is_above_it_and_at_its_version(fixture: Fixture) {
    let (admin, manager) =
        (fixture.user("admin@example.com", "admin").await, fixture.user("manager@example.com", "manager").await);
    let user = fixture.create("ada@example.com", "Ada").await;
    for (by, whom) in [(user.id, manager), (manager, admin), (manager, manager), (user.id, user.id), (admin, admin)] {
        let (by, now) = (ActorId::User(by), fixture.now());
        assert!(matches!(fixture.delete(by, whom).await, Err(Error::Refused(_))));
        assert!(matches!(fixture.store.undelete(by, whom, now).await, Err(Error::Refused(_))));
        assert!(matches!(fixture.store.purge(by, whom, now).await, Err(Error::Refused(_))));
    }
    assert!(matches!(fixture.delete(ActorId::Operator, admin).await, Err(Error::LastAdministrator)));
    let stale =
        fixture.store.delete(ActorId::Operator, user.id, Some(user.version + 1), RETENTION, fixture.now()).await;
    assert!(matches!(stale, Err(Error::Stale)));
    assert!(matches!(fixture.delete(ActorId::Operator, Uuid::now_v7()).await, Err(Error::NotFound)));
    fixture.store.delete(ActorId::Operator, user.id, Some(user.version), RETENTION, fixture.now()).await.unwrap();
    // Who is deleted does nothing any more.
    let other = fixture.user("other@example.com", "admin").await;
    fixture.delete(ActorId::User(admin), other).await.unwrap();
    let refused = fixture.delete(ActorId::User(other), manager).await;
    assert!(matches!(refused, Err(Error::Refused(Refused::PermissionMissing(_)))), "{refused:?}");
}

async fn of_two_administrators_who_delete_each_other_one_stays(fixture: Fixture) {
    let admins = [fixture.user("a@example.com", "admin").await, fixture.user("b@example.com", "admin").await];
    let mut tasks = JoinSet::new();
    for (by, whom) in [(admins[0], admins[1]), (admins[1], admins[0])] {
        let (store, now) = (fixture.store.clone(), fixture.now());
        tasks.spawn(async move { store.delete(ActorId::User(by), whom, None, RETENTION, now).await.is_ok() });
    }
    let deleted = tasks.join_all().await;
    assert_eq!(deleted.iter().filter(|is_deleted| **is_deleted).count(), 1);
}

async fn a_purged_account_leaves_nothing_but_messages(fixture: Fixture) {
    let imported = import("ada@example.com", fixture.now());
    fixture.store.provision("old", std::slice::from_ref(&imported), fixture.now()).await.unwrap();
    let user = imported.account.id;
    let grant = Grant { role: "manager".parse().unwrap(), expires_at: None };
    fixture.store.grant_role(ActorId::Operator, user, &grant, fixture.now()).await.unwrap();
    let denial = Override { permission: "users:read".to_owned(), effect: Effect::Deny, expires_at: None };
    fixture.store.set_override(ActorId::Operator, user, &denial, "", fixture.now()).await.unwrap();
    let not_deleted = fixture.store.purge(ActorId::Operator, user, fixture.now()).await;
    assert!(matches!(not_deleted, Err(Error::NotDeleted)));
    fixture.delete(ActorId::Operator, user).await.unwrap();
    assert_eq!(fixture.store.purge_due(fixture.now()).await.unwrap(), 0);
    assert!(fixture.store.purge(ActorId::Operator, user, fixture.now()).await.unwrap());
    assert!(!fixture.store.purge(ActorId::Operator, user, fixture.now()).await.unwrap());
    assert_eq!(fixture.store.find(user).await.unwrap(), None);
    let key = user.to_string();
    let messages = fixture.messages().await;
    let kinds: Vec<_> = messages.iter().filter(|(_, of)| *of == key).map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(
        kinds[kinds.len() - 4..],
        ["end_user_sessions", "forget_password", "forget_properties", "forget_notifications"]
    );
    for table in ["account", "role_grant", "permission_override", "account_word", "imported_account"] {
        let select = format!("SELECT count(*) FROM {table}");
        let left: i64 = run!(fixture.db.reader(), |db| {
            sqlx::query_scalar(sqlx::AssertSqlSafe(select)).fetch_one(db).await.unwrap()
        });
        assert_eq!(left, 0, "{table}");
    }
    fixture.create("ada@example.com", "Ada").await;
}

/// What goes on late, such as a registration, does not create it again.
async fn the_id_of_a_removed_account_is_not_used_again(fixture: Fixture) {
    let user = fixture.create("ada@example.com", "Ada").await;
    fixture.delete(ActorId::Operator, user.id).await.unwrap();
    fixture.store.purge(ActorId::Operator, user.id, fixture.now()).await.unwrap();
    let again = NewAccount { id: user.id, ..new("ada@example.com", "Ada", fixture.now()) };
    assert!(matches!(fixture.store.create(again.clone(), fixture.now()).await, Err(Error::IdTaken)));
    fixture.store.forget_purged(fixture.now() + TimeDelta::seconds(1)).await.unwrap();
    fixture.store.create(again, fixture.now()).await.unwrap();
}

/// As an instance of the release before does it, which takes a deleted account for a disabled one.
async fn an_account_that_was_enabled_while_deleted_is_not_purged(fixture: Fixture) {
    for number in 0..120 {
        let user = fixture.create(&format!("user{number}@example.com"), "Ada").await.id;
        fixture.store.delete(ActorId::Operator, user, None, Duration::ZERO, fixture.now()).await.unwrap();
    }
    run!(fixture.db.writer(), |db| {
        sqlx::query("UPDATE account SET status = 1").execute(db).await.map(drop).unwrap();
    });
    assert_eq!(fixture.store.purge_due(fixture.now()).await.unwrap(), 0);
    let listed = fixture.store.list(&ListQuery::default(), &ListPage { size: 100, after: None }, fixture.now()).await;
    assert!(listed.unwrap().accounts.iter().all(|(_, account)| account.deletion.is_none()));
}

async fn deleted_accounts_are_purged_when_their_time_has_come(fixture: Fixture) {
    let users = [fixture.create("a@example.com", "A").await.id, fixture.create("b@example.com", "B").await.id];
    for user in users {
        fixture.delete(ActorId::Operator, user).await.unwrap();
    }
    fixture.store.undelete(ActorId::Operator, users[1], fixture.now()).await.unwrap();
    fixture.clock.advance(RETENTION);
    assert_eq!(fixture.store.purge_due(fixture.now()).await.unwrap(), 1);
    assert_eq!(fixture.store.find(users[0]).await.unwrap(), None);
    assert_eq!(fixture.find(users[1]).await.status, Status::Active);
}

on_each_engine! {
    a_profile_is_read_as_it_was_written_and_changed_in_parts,
    a_profile_is_changed_by_its_user_and_from_above,
    a_telegram_user_is_linked_to_one_account,
    a_repeated_creation_returns_the_account_that_it_created,
    a_deleted_account_is_restored_as_it_was,
    an_account_is_deleted_by_who_is_above_it_and_at_its_version,
    of_two_administrators_who_delete_each_other_one_stays,
    a_purged_account_leaves_nothing_but_messages,
    the_id_of_a_removed_account_is_not_used_again,
    an_account_that_was_enabled_while_deleted_is_not_purged,
    deleted_accounts_are_purged_when_their_time_has_come,
}
