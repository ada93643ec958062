//! Imports and totals in the store, on both engines.

use chrono::TimeDelta;
use drystone_mesh::id;
use drystone_user::{
    NewAccount, Status,
    account::TelegramId,
    role::evaluation::active_roles,
    store::{ActorId, Import, ListQuery, Provisioned},
};
use tokio::task::JoinSet;

use crate::{
    accounts::{Fixture, import, new},
    database::on_each_engine,
};

async fn an_import_creates_what_it_can(fixture: Fixture) {
    let now = fixture.now();
    let old = now - TimeDelta::days(100);
    fixture.create("taken@example.com", "Eve").await;
    let full = Import {
        roles: vec!["manager".parse().unwrap(), "member".parse().unwrap()],
        status: Status::Disabled,
        telegram_id: TelegramId::new(7),
        created_at: old,
        email_verified: false,
        account: NewAccount { id: id::v7_at(old), ..new("ada@example.com", "Ada Lovelace", now) },
        ..import("ada@example.com", now)
    };
    let unknown_role = Import { roles: vec!["owner".parse().unwrap()], ..import("b@example.com", now) };
    let same_telegram = Import { telegram_id: TelegramId::new(7), ..import("c@example.com", now) };
    let same_id = Import { external_id: "ada@example.com".to_owned(), ..import("d@example.com", now) };
    let all = [
        full.clone(),
        import("TAKEN@example.com", now),
        unknown_role,
        same_telegram,
        same_id,
        import("e@example.com", now),
    ];
    let outcomes = fixture.store.provision("old", &all, now).await.unwrap();
    let unknown = Provisioned::UnknownRole("owner".parse().unwrap());
    let expected = [
        Provisioned::Created,
        Provisioned::Taken,
        unknown,
        Provisioned::Taken,
        Provisioned::Duplicate,
        Provisioned::Created,
    ];
    assert_eq!(outcomes, expected);
    let ada = fixture.find(full.account.id).await;
    assert_eq!(active_roles(&ada.grants, now), ["manager", "member"]);
    assert_eq!((ada.status, ada.telegram_id, ada.created_at), (Status::Disabled, TelegramId::new(7), old));
    let query = ListQuery { prefixes: vec!["lovelace".to_owned()], ..ListQuery::default() };
    assert_eq!(fixture.list(&query, 10).await, ["ada", "e"]);
    assert_eq!(fixture.list(&ListQuery::default(), 10).await[0], "ada", "the oldest");

    // Again, with new ids: what is there stays as it is.
    let again: Vec<_> = all
        .iter()
        .map(|one| Import { account: NewAccount { id: id::v7_at(now), ..one.account.clone() }, ..one.clone() })
        .collect();
    let repeated = fixture.store.provision("old", &again, now).await.unwrap();
    assert_eq!(repeated[0], Provisioned::Existed(full.account.id));
    assert_eq!(repeated[5], Provisioned::Existed(all[5].account.id));
    assert_eq!(repeated[1], Provisioned::Taken);
    assert_eq!(fixture.find(ada.id).await, ada);
    let ids = ["ada@example.com", "nobody"];
    let found = fixture.store.imported("old", &ids).await.unwrap();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [("ada@example.com".to_owned(), ada.id)]);
    assert!(fixture.store.imported("other", &ids).await.unwrap().is_empty());
}

async fn concurrent_imports_of_one_file_create_each_account_once(fixture: Fixture) {
    let now = fixture.now();
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let store = fixture.store.clone();
        let imports: Vec<_> = (0..150).map(|number| import(&format!("user{number}@example.com"), now)).collect();
        tasks.spawn(async move { store.provision("old", &imports, now).await.unwrap() });
    }
    let outcomes: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Provisioned::Created).count(), 150);
    let existed = outcomes.iter().filter(|outcome| matches!(outcome, Provisioned::Existed(_))).count();
    assert_eq!(existed, 450, "{outcomes:?}");
    assert_eq!(fixture.list(&ListQuery::default(), 100).await.len(), 150);
}

async fn imports_with_the_same_ids_and_other_addresses_are_each_answered(fixture: Fixture) {
    let now = fixture.now();
    let mut tasks = JoinSet::new();
    for domain in ["a", "b", "c", "d"] {
        let store = fixture.store.clone();
        let imports: Vec<_> = (0..200)
            .map(|number| Import {
                external_id: number.to_string(),
                ..import(&format!("user{number}@{domain}.example"), now)
            })
            .collect();
        tasks.spawn(async move { store.provision("old", &imports, now).await.unwrap() });
    }
    let outcomes: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Provisioned::Created).count(), 200);
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Provisioned::Existed(_))).count(), 600);
}

async fn totals_follow_every_change(fixture: Fixture) {
    let manager = fixture.user("manager@example.com", "manager").await;
    let user = fixture.create("ada@example.com", "Ada").await.id;
    let imports: Vec<_> = (0..3).map(|number| import(&format!("user{number}@example.com"), fixture.now())).collect();
    fixture.store.provision("old", &imports, fixture.now()).await.unwrap();
    let check = async |active: i64, disabled: i64, deleted: i64, managers: i64| {
        let totals = fixture.store.totals().await.unwrap();
        let by_status: Vec<_> = totals.by_status.into_iter().collect();
        assert_eq!(by_status, [("active", active), ("deleted", deleted), ("disabled", disabled)]);
        assert_eq!(totals.by_role.get("manager").copied().unwrap_or_default(), managers);
    };
    check(5, 0, 0, 1).await;
    fixture.store.set_disabled(ActorId::Operator, user, true, fixture.now()).await.unwrap();
    fixture.store.set_disabled(ActorId::Operator, user, true, fixture.now()).await.unwrap();
    check(4, 1, 0, 1).await;
    fixture.delete(ActorId::Operator, manager).await.unwrap();
    fixture.delete(ActorId::Operator, user).await.unwrap();
    check(3, 0, 2, 1).await;
    fixture.store.undelete(ActorId::Operator, user, fixture.now()).await.unwrap();
    check(3, 1, 1, 1).await;
    fixture.store.purge(ActorId::Operator, manager, fixture.now()).await.unwrap();
    check(3, 1, 0, 0).await;
}

on_each_engine! {
    an_import_creates_what_it_can,
    concurrent_imports_of_one_file_create_each_account_once,
    imports_with_the_same_ids_and_other_addresses_are_each_answered,
    totals_follow_every_change,
}
