//! The contract of account stores: one suite, run on each engine.

use std::{any::Any, collections::HashSet, time::Duration};

use drystone_mesh::clock::Clock;
use drystone_user::{
    Account, DisplayName, Email, Error, NewAccount, Profile, ProfileChange, UserStore,
    role::{RoleName, evaluation::active_roles},
    store::{ActorId, ListPage, ListQuery},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::database::{Database, on_each_engine};

/// An empty store and a manual clock.
struct Fixture {
    store: UserStore,
    clock: Clock,
    /// Keeps the database.
    _guard: Box<dyn Any>,
}

impl Fixture {
    fn new((db, guard): Database) -> Self {
        let clock = Clock::manual(Clock::system().now());
        Self { store: UserStore::new(db, Vec::new()), clock, _guard: guard }
    }

    async fn create(&self, email: &str) -> Account {
        self.store.create(new(email), self.clock.now()).await.unwrap()
    }
}

fn new(email: &str) -> NewAccount {
    NewAccount { id: Uuid::now_v7(), email: Email::parse(email).unwrap(), profile: profile("Ada") }
}

fn profile(name: &str) -> Profile {
    Profile::new(DisplayName::parse(name).unwrap())
}

fn rename(name: &str) -> ProfileChange {
    ProfileChange { display_name: Some(DisplayName::parse(name).unwrap()), ..ProfileChange::default() }
}

async fn an_account_is_found_by_id_and_by_email_case_insensitively(fixture: Fixture) {
    let created = fixture.create("Ada@Example.com").await;
    assert_eq!(created.email.as_str(), "Ada@Example.com");
    assert_eq!(created.created_at, fixture.clock.now());
    assert_eq!(created.updated_at, fixture.clock.now());

    assert_eq!(fixture.store.find(created.id).await.unwrap().as_ref(), Some(&created));
    let email = Email::parse("aDA@eXAMPLE.COM").unwrap();
    assert_eq!(fixture.store.find_by_email(&email).await.unwrap(), Some(created));
}

async fn a_missing_account_is_none(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    let id = Uuid::now_v7();
    assert_eq!(store.find(id).await.unwrap(), None);
    assert_eq!(store.find_by_email(&Email::parse("ada@example.com").unwrap()).await.unwrap(), None);
    for version in [None, Some(1)] {
        let missing = store.update_profile(ActorId::User(id), id, &rename("Eve"), version, now).await;
        assert!(matches!(missing, Err(Error::NotFound)));
    }
    assert!(matches!(store.set_roles(id, &[], now).await, Err(Error::NotFound)));
}

async fn creating_an_account_is_idempotent(fixture: Fixture) {
    let first = fixture.create("ada@example.com").await;
    fixture.clock.advance(Duration::from_secs(1));
    let again = NewAccount { id: first.id, profile: profile("Somebody else"), ..new("ADA@example.com") };
    assert_eq!(fixture.store.create(again, fixture.clock.now()).await.unwrap(), first);
}

async fn an_id_belongs_to_one_email_only(fixture: Fixture) {
    let first = fixture.create("ada@example.com").await;
    let other = NewAccount { id: first.id, ..new("eve@example.com") };
    assert!(matches!(fixture.store.create(other, fixture.clock.now()).await, Err(Error::IdTaken)));
    assert_eq!(fixture.store.find(first.id).await.unwrap(), Some(first));
}

async fn an_email_belongs_to_one_account_only_case_insensitively(fixture: Fixture) {
    fixture.create("ada@example.com").await;
    let taken = fixture.store.create(new("ADA@EXAMPLE.COM"), fixture.clock.now()).await;
    assert!(matches!(taken, Err(Error::EmailTaken)));
}

async fn concurrent_creations_with_one_email_create_one_account(fixture: Fixture) {
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let (store, now) = (fixture.store.clone(), fixture.clock.now());
        let email = if number % 2 == 0 { "ada@example.com" } else { "Ada@Example.Com" };
        tasks.spawn(async move { store.create(new(email), now).await });
    }
    let (created, refused): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(created.len(), 1);
    assert!(refused.iter().all(|result| matches!(result, Err(Error::EmailTaken))));
}

async fn concurrent_retries_return_the_same_account(fixture: Fixture) {
    let wanted = new("ada@example.com");
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let (store, wanted, now) = (fixture.store.clone(), wanted.clone(), fixture.clock.now());
        tasks.spawn(async move { store.create(wanted, now).await.unwrap().id });
    }
    assert!(tasks.join_all().await.into_iter().all(|id| id == wanted.id));
}

async fn a_name_changes_only_at_the_expected_version(fixture: Fixture) {
    let first = fixture.create("ada@example.com").await;
    fixture.clock.advance(Duration::from_secs(1));
    let now = fixture.clock.now();

    let change = async |name: &str, version| {
        fixture.store.update_profile(ActorId::User(first.id), first.id, &rename(name), version, now).await
    };
    let second = change("Countess", Some(first.version)).await.unwrap();
    assert_ne!(second.version, first.version);
    let expected = Account { profile: profile("Countess"), version: second.version, updated_at: now, ..first.clone() };
    assert_eq!(second, expected);

    let late = change("Ada", Some(first.version)).await;
    assert!(matches!(late, Err(Error::Stale)));
    assert_eq!(fixture.store.find(first.id).await.unwrap(), Some(second));

    assert_eq!(change("Ada", None).await.unwrap().profile, profile("Ada"));
}

async fn an_unchanged_name_keeps_the_version(fixture: Fixture) {
    let first = fixture.create("ada@example.com").await;
    fixture.clock.advance(Duration::from_secs(1));
    let now = fixture.clock.now();
    let change = async |version| {
        fixture.store.update_profile(ActorId::User(first.id), first.id, &rename("Ada"), version, now).await
    };
    for version in [None, Some(first.version)] {
        assert_eq!(change(version).await.unwrap(), first);
    }
    let late = change(Some(first.version + 1)).await;
    assert!(matches!(late, Err(Error::Stale)));
}

async fn of_concurrent_changes_to_one_version_one_succeeds(fixture: Fixture) {
    let account = fixture.create("ada@example.com").await;
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let (store, now) = (fixture.store.clone(), fixture.clock.now());
        let (change, by) = (rename(&format!("Ada {number}")), ActorId::User(account.id));
        tasks.spawn(async move { store.update_profile(by, account.id, &change, Some(account.version), now).await });
    }
    let (won, lost): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|result| matches!(result, Err(Error::Stale))));
    let winner = won.into_iter().next().unwrap().unwrap();
    assert_eq!(fixture.store.find(account.id).await.unwrap(), Some(winner));
}

async fn roles_are_replaced_and_unchanged_roles_keep_the_version(fixture: Fixture) {
    let first = fixture.create("ada@example.com").await;
    fixture.clock.advance(Duration::from_secs(1));
    let now = fixture.clock.now();

    let roles = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<RoleName>>();
    let admin = roles(&["admin", "member"]);
    let message = fixture.store.set_roles(first.id, &admin, now).await.unwrap().voiding;
    let promoted = fixture.store.find(first.id).await.unwrap().unwrap();
    assert_eq!(active_roles(&promoted.grants, now), ["admin", "member"]);
    assert_ne!(promoted.version, first.version);
    assert_eq!(promoted.updated_at, now);

    fixture.clock.advance(Duration::from_secs(1));
    let again = fixture.store.set_roles(first.id, &admin, fixture.clock.now()).await.unwrap().voiding;
    assert_eq!(fixture.store.find(first.id).await.unwrap().unwrap(), promoted);
    assert!(message.is_some() && again.is_some() && message != again);

    let second = fixture.create("bob@example.com").await;
    fixture.store.set_roles(second.id, &admin, now).await.unwrap();
    fixture.store.set_roles(first.id, &[], now).await.unwrap();
    let demoted = fixture.store.find(first.id).await.unwrap().unwrap();
    assert_eq!(active_roles(&demoted.grants, now), ["member"]);
    let unknown = fixture.store.set_roles(first.id, &roles(&["gone"]), now).await;
    assert!(matches!(unknown, Err(Error::RoleNotFound)));
}

async fn pages_contain_every_account_once_during_concurrent_creations(fixture: Fixture) {
    let mut expected = Vec::new();
    for number in 0..25 {
        expected.push(fixture.create(&format!("user{number}@example.com")).await.id);
    }
    let (store, clock) = (fixture.store.clone(), fixture.clock.clone());
    let concurrent = tokio::spawn(async move {
        for number in 25..50 {
            store.create(new(&format!("user{number}@example.com")), clock.now()).await.unwrap();
        }
    });
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = ListPage { size: 4, after };
        let rows = fixture.store.list(&ListQuery::default(), &page, fixture.clock.now()).await.unwrap().accounts;
        assert!(rows.len() <= 5, "a page plus one row, which shows that there is a next page");
        seen.extend(rows.iter().take(4).map(|(_, account)| account.id));
        after = seen.last().map(|id| (String::new(), *id));
        if rows.len() <= 4 {
            break;
        }
    }
    concurrent.await.unwrap();
    assert_eq!(seen[..25], expected);
    assert!(seen.is_sorted());
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len());
}

on_each_engine! {
    an_account_is_found_by_id_and_by_email_case_insensitively,
    a_missing_account_is_none,
    creating_an_account_is_idempotent,
    an_id_belongs_to_one_email_only,
    an_email_belongs_to_one_account_only_case_insensitively,
    concurrent_creations_with_one_email_create_one_account,
    concurrent_retries_return_the_same_account,
    a_name_changes_only_at_the_expected_version,
    an_unchanged_name_keeps_the_version,
    of_concurrent_changes_to_one_version_one_succeeds,
    roles_are_replaced_and_unchanged_roles_keep_the_version,
    pages_contain_every_account_once_during_concurrent_creations,
}
