//! Lists and searches of accounts in the store, on both engines.

use std::{collections::BTreeSet, time::Duration};

use chrono::TimeDelta;
use drystone_mesh::{email::Email, id};
use drystone_store::run;
use drystone_user::{
    DisplayName, ProfileChange, Status,
    role::Grant,
    search,
    store::{ActorId, ListOrder, ListPage, ListQuery, StatusFilter},
};

use crate::{
    accounts::{Fixture, RETENTION, import, new},
    database::on_each_engine,
};

async fn lists_are_filtered_and_ordered(fixture: Fixture) {
    for (number, name) in ["carl", "ada", "bob", "adam", "dora"].into_iter().enumerate() {
        fixture.create(&format!("{name}@example.com"), name).await;
        fixture.clock.advance(Duration::from_hours(1 + number as u64));
    }
    let id = async |name: &str| {
        let email = Email::parse(&format!("{name}@example.com")).unwrap();
        fixture.store.find_by_email(&email).await.unwrap().unwrap()
    };
    let grant = |expires_at| Grant { role: "manager".parse().unwrap(), expires_at };
    let soon = fixture.now() + TimeDelta::minutes(1);
    for (name, expires_at) in [("ada", None), ("carl", Some(soon)), ("dora", None)] {
        let user = id(name).await.id;
        fixture.store.grant_role(ActorId::Operator, user, &grant(expires_at), fixture.now()).await.unwrap();
    }
    fixture.store.set_disabled(ActorId::Operator, id("dora").await.id, true, fixture.now()).await.unwrap();
    fixture.delete(ActorId::Operator, id("bob").await.id).await.unwrap();
    let created_at = id("adam").await.created_at;

    let all = ListQuery::default;
    let by_email = || ListQuery { order: ListOrder::Email, ..all() };
    let only = |status| ListQuery { status: StatusFilter::Only(status), ..all() };
    let role = || ListQuery { role: Some("manager".parse().unwrap()), ..all() };
    let table: Vec<(ListQuery, &[&str])> = vec![
        (all(), &["carl", "ada", "adam", "dora"]),
        (ListQuery { is_descending: true, ..all() }, &["dora", "adam", "ada", "carl"]),
        (by_email(), &["ada", "adam", "carl", "dora"]),
        (ListQuery { is_descending: true, ..by_email() }, &["dora", "carl", "adam", "ada"]),
        (only(Status::Active), &["carl", "ada", "adam"]),
        (only(Status::Disabled), &["dora"]),
        (only(Status::Deleted), &["bob"]),
        (role(), &["carl", "ada", "dora"]),
        (ListQuery { is_descending: true, ..role() }, &["dora", "ada", "carl"]),
        (ListQuery { order: ListOrder::Email, ..role() }, &["ada", "carl", "dora"]),
        (ListQuery { status: StatusFilter::Only(Status::Active), ..role() }, &["carl", "ada"]),
        (ListQuery { role: Some("admin".parse().unwrap()), ..all() }, &[]),
        (ListQuery { email: Some("ada@example.com".to_owned()), ..all() }, &["ada"]),
        (ListQuery { email_prefix: Some("ada".to_owned()), ..all() }, &["ada", "adam"]),
        (ListQuery { email_prefix: Some("ada".to_owned()), is_descending: true, ..by_email() }, &["adam", "ada"]),
        (ListQuery { created_from: Some(created_at), ..all() }, &["adam", "dora"]),
        (ListQuery { created_before: Some(created_at), ..all() }, &["carl", "ada"]),
        (ListQuery { created_from: Some(created_at), created_before: Some(created_at), ..all() }, &[]),
    ];
    for (query, expected) in &table {
        for size in [1, 2, 100] {
            assert_eq!(fixture.list(query, size).await, *expected, "{query:?} in pages of {size}");
        }
    }
    fixture.clock.advance(Duration::from_mins(2));
    assert_eq!(fixture.list(&role(), 2).await, ["ada", "dora"], "an expired grant is none");
}

async fn accounts_are_found_by_words_of_names_and_by_addresses(fixture: Fixture) {
    for (email, name) in [
        ("al@example.com", "Ada Lovelace"),
        ("ada@example.com", "Ada Adams"),
        ("bob@example.com", "Robert Adair"),
        ("eva@example.com", "Éva Szabó"),
        ("x%@example.com", "100 % Wool_"),
    ] {
        fixture.create(email, name).await;
        fixture.clock.advance(Duration::from_secs(1));
    }
    let search = async |text: &str, size| {
        let prefixes = search::prefixes(text).unwrap();
        fixture.list(&ListQuery { prefixes, ..ListQuery::default() }, size).await
    };
    let table: [(&str, &[&str]); 12] = [
        ("ada", &["al", "ada", "bob"]),
        ("ada ", &["al", "ada", "bob"]),
        ("ADA@example.com", &["ada"]),
        ("ada@", &["ada"]),
        ("love", &["al"]),
        ("ada love", &["al"]),
        ("adams ada", &["ada"]),
        ("éva", &["eva"]),
        ("ÉVA", &["eva"]),
        ("eva@", &["eva"]),
        ("%", &["x%"]),
        ("nobody", &[]),
    ];
    for (text, expected) in table {
        for size in [1, 2, 100] {
            assert_eq!(search(text, size).await, expected, "{text} in pages of {size}");
        }
    }
    let bob = fixture.store.find_by_email(&Email::parse("bob@example.com").unwrap()).await.unwrap().unwrap().id;
    let change = ProfileChange {
        display_name: Some(DisplayName::parse("Bob").unwrap()),
        family_name: Some("Lovett".to_owned()),
        ..ProfileChange::default()
    };
    fixture.store.update_profile(ActorId::User(bob), bob, &change, None, fixture.now()).await.unwrap();
    assert_eq!(search("love", 100).await, ["al", "bob"]);
    assert_eq!(search("adair", 100).await, [""; 0]);
    fixture.delete(ActorId::Operator, bob).await.unwrap();
    assert_eq!(search("love", 100).await, ["al"]);
}

async fn pages_are_complete_and_without_repeats_during_changes(fixture: Fixture) {
    let mut stable = BTreeSet::new();
    for number in 0..40 {
        let email = format!("stable{number:02}@example.com");
        fixture.create(&email, "Ada Adams").await;
        stable.insert(format!("stable{number:02}"));
    }
    let (store, clock) = (fixture.store.clone(), fixture.clock.clone());
    let others = tokio::spawn(async move {
        for number in 0..60 {
            let email = format!("other{number}@example.com");
            let other = store.create(new(&email, "Ada Adams", clock.now()), clock.now()).await.unwrap().id;
            store.delete(ActorId::Operator, other, None, RETENTION, clock.now()).await.unwrap();
            store.purge(ActorId::Operator, other, clock.now()).await.unwrap();
        }
    });
    let by_email = ListQuery { order: ListOrder::Email, ..ListQuery::default() };
    let by_words = ListQuery { prefixes: vec!["ada".to_owned()], ..ListQuery::default() };
    while !others.is_finished() {
        for query in [&ListQuery::default(), &by_email, &by_words] {
            let seen = fixture.list(query, 7).await;
            let distinct: BTreeSet<_> = seen.iter().filter(|name| name.starts_with("stable")).cloned().collect();
            assert_eq!(distinct, stable);
            assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "{seen:?}");
        }
    }
    others.await.unwrap();
}

/// A list with conditions that few accounts pass does not read all of them at once.
async fn a_page_ends_after_many_accounts_that_do_not_match(fixture: Fixture) {
    let now = fixture.now();
    for first in (0..10_500).step_by(500) {
        let imports: Vec<_> =
            (first..first + 500).map(|number| import(&format!("user{number}@example.com"), now)).collect();
        fixture.store.provision("old", &imports, now).await.unwrap();
    }
    fixture.clock.advance(Duration::from_secs(1));
    fixture.user("last@example.com", "manager").await;
    let rare = ListQuery { prefixes: vec!["ada".to_owned(), "last@".to_owned()], ..ListQuery::default() };
    let rare_role = ListQuery {
        role: Some("manager".parse().unwrap()),
        order: ListOrder::Email,
        is_descending: true,
        ..ListQuery::default()
    };
    let rare_prefix = ListQuery { email_prefix: Some("last".to_owned()), ..ListQuery::default() };
    for query in [rare, rare_role, rare_prefix] {
        let page = ListPage { size: 50, after: None };
        let first = fixture.store.list(&query, &page, fixture.now()).await.unwrap();
        assert!(first.accounts.is_empty() && first.ends_at.is_some(), "{query:?}: {first:?}");
        assert_eq!(fixture.list(&query, 50).await, ["last"], "{query:?}");
    }
    assert_eq!(fixture.list(&ListQuery::default(), 200).await.len(), 10_501);
}

async fn the_words_of_older_accounts_are_completed(fixture: Fixture) {
    for number in 0..450 {
        // As an instance of the release before does it.
        let id = id::v7_at(fixture.now());
        let email = format!("old{number}@example.com");
        run!(fixture.db.writer(), |db| {
            sqlx::query(
                "INSERT INTO account (id, email, email_key, display_name, roles, version, created_at, updated_at)
                 VALUES ($1, $2, $2, 'Ada Lovelace', 'member', 1, 1, 1)",
            )
            .bind(id)
            .bind(email.as_str())
            .execute(db)
            .await
            .unwrap();
        });
    }
    let query = ListQuery { prefixes: vec!["lovelace".to_owned()], ..ListQuery::default() };
    assert_eq!(fixture.list(&query, 100).await.len(), 0);
    assert_eq!(fixture.store.complete_words().await.unwrap(), 450);
    assert_eq!(fixture.list(&query, 100).await.len(), 450);
    assert_eq!(fixture.store.complete_words().await.unwrap(), 0);
    // Also of those that it renames.
    let new = fixture.create("new@example.com", "Bob Lovett").await;
    run!(fixture.db.writer(), |db| {
        let rename = "UPDATE account SET display_name = 'Bob King', version = version + 1 WHERE id = $1";
        sqlx::query(rename).bind(new.id).execute(db).await.map(drop).unwrap();
    });
    assert_eq!(fixture.store.complete_words().await.unwrap(), 1);
    let found = async |prefix: &str| {
        fixture.list(&ListQuery { prefixes: vec![prefix.to_owned()], ..ListQuery::default() }, 10).await
    };
    assert_eq!((found("king").await, found("lovett").await), (vec!["new".to_owned()], Vec::new()));
    // And none that this release renames.
    let change =
        ProfileChange { display_name: Some(DisplayName::parse("Bob Prince").unwrap()), ..ProfileChange::default() };
    fixture.store.update_profile(ActorId::User(new.id), new.id, &change, None, fixture.now()).await.unwrap();
    assert_eq!(fixture.store.complete_words().await.unwrap(), 0);
    assert_eq!((found("prince").await, found("king").await), (vec!["new".to_owned()], Vec::new()));
}

on_each_engine! {
    lists_are_filtered_and_ordered,
    accounts_are_found_by_words_of_names_and_by_addresses,
    pages_are_complete_and_without_repeats_during_changes,
    a_page_ends_after_many_accounts_that_do_not_match,
    the_words_of_older_accounts_are_completed,
}
