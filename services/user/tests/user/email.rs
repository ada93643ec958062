//! Verified e-mail addresses, and their changes, on both engines.

use std::time::Duration;

use drystone_user::{
    Email, Error, UserStore,
    store::{ActorId, EmailChange, Provisioned},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    accounts::{Fixture, import, new},
    database::on_each_engine,
};

const WEEK: Duration = Duration::from_hours(7 * 24);

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

impl Fixture {
    /// A change from one address to another, which keeps the first for a week.
    fn change(&self, user_id: Uuid, from: &str, to: &str) -> EmailChange {
        EmailChange { user_id, email: email(to), current: Some(email(from)), keep_until: Some(self.now() + WEEK) }
    }

    async fn set_email(&self, user_id: Uuid, from: &str, to: &str) -> Result<Email, Error> {
        Ok(self.store.set_email(&self.change(user_id, from, to), self.now()).await?.email)
    }

    async fn search(&self, word: &str) -> usize {
        let query = drystone_user::store::ListQuery { prefixes: vec![word.to_owned()], ..Default::default() };
        self.list(&query, 10).await.len()
    }
}

async fn an_address_is_verified_once(fixture: Fixture) {
    let account = fixture.create("Ada@example.com", "Ada").await;
    assert_eq!(account.email_verified_at, None);
    let (_, is_verified) = fixture.store.rights_by_email(&account.email).await.unwrap().unwrap();
    assert!(!is_verified);
    fixture.clock.advance(Duration::from_mins(1));
    let change = EmailChange { email: account.email.clone(), ..fixture.change(account.id, "ada@example.com", "a@b.c") };
    let verified = fixture.store.set_email(&change, fixture.now()).await.unwrap();
    assert_eq!((verified.email_verified_at, verified.version), (Some(fixture.now()), account.version + 1));
    assert_eq!(verified.email, account.email);
    assert!(fixture.store.rights_by_email(&account.email).await.unwrap().unwrap().1);
    fixture.clock.advance(Duration::from_mins(1));
    assert_eq!(fixture.store.set_email(&change, fixture.now()).await.unwrap(), verified, "once");
    assert_eq!(fixture.find(account.id).await, verified);
}

async fn a_changed_address_is_found_and_the_one_before_is_kept_for_its_user(fixture: Fixture) {
    let user = fixture.create("old@example.com", "Ada").await.id;
    assert_eq!(
        fixture.set_email(user, "old@example.com", "New@example.com").await.unwrap().as_str(),
        "New@example.com"
    );
    assert!(fixture.store.find_by_email(&email("old@example.com")).await.unwrap().is_none());
    let found = fixture.store.find_by_email(&email("new@example.com")).await.unwrap().unwrap();
    assert!(found.id == user && found.email_verified_at == Some(fixture.now()));
    assert_eq!((fixture.search("old@example").await, fixture.search("new@example").await), (0, 1));
    // Nobody else gets the address, in whatever way.
    let other = fixture.create("other@example.com", "Eve").await.id;
    let now = fixture.now();
    assert!(matches!(fixture.store.create(new("OLD@example.com", "Eve", now), now).await, Err(Error::EmailTaken)));
    assert!(matches!(
        fixture.store.create_for(new("old@example.com", "Eve", now), None, now).await,
        Err(Error::EmailTaken)
    ));
    let imports = [import("old@example.com", now), import("fresh@example.com", now)];
    let imported = fixture.store.provision("other", &imports, now).await.unwrap();
    assert_eq!(imported, [Provisioned::Taken, Provisioned::Created]);
    assert!(matches!(fixture.set_email(other, "other@example.com", "old@example.com").await, Err(Error::EmailTaken)));
    assert_eq!(fixture.find(other).await.email.as_str(), "other@example.com");
    // Their user does.
    assert_eq!(
        fixture.set_email(user, "new@example.com", "old@example.com").await.unwrap().as_str(),
        "old@example.com"
    );
    // For a week.
    assert_eq!(
        fixture.set_email(user, "old@example.com", "third@example.com").await.unwrap().as_str(),
        "third@example.com"
    );
    fixture.clock.advance(WEEK);
    assert_eq!(
        fixture.set_email(other, "other@example.com", "old@example.com").await.unwrap().as_str(),
        "old@example.com"
    );
    assert_eq!(fixture.store.forget_kept_emails(fixture.now()).await.unwrap(), 2, "`new` and `old`");
    fixture.create("new@example.com", "Grace").await;
}

async fn a_change_expects_an_address_and_is_repeated_without_harm(fixture: Fixture) {
    let user = fixture.create("old@example.com", "Ada").await.id;
    assert!(matches!(fixture.set_email(user, "wrong@example.com", "new@example.com").await, Err(Error::Stale)));
    let once = fixture.set_email(user, "old@example.com", "new@example.com").await.unwrap();
    let version = fixture.find(user).await.version;
    assert_eq!(fixture.set_email(user, "old@example.com", "new@example.com").await.unwrap(), once);
    assert_eq!(fixture.find(user).await.version, version);
    // What is undone expects none.
    let undone =
        EmailChange { current: None, keep_until: None, ..fixture.change(user, "x@example.com", "old@example.com") };
    fixture.store.set_email(&undone, fixture.now()).await.unwrap();
    fixture.create("new@example.com", "it is not kept").await;
    let unknown = fixture.set_email(Uuid::now_v7(), "old@example.com", "new@example.com").await;
    assert!(matches!(unknown, Err(Error::NotFound)));
    fixture.delete(ActorId::Operator, user).await.unwrap();
    assert!(matches!(fixture.set_email(user, "old@example.com", "b@example.com").await, Err(Error::Deleted)));
}

async fn of_two_who_want_an_address_one_gets_it(fixture: Fixture) {
    for round in 0..10 {
        let wanted = format!("wanted{round}@example.com");
        let (first, second) = (format!("a{round}@example.com"), format!("b{round}@example.com"));
        let (one, two) = (fixture.create(&first, "A").await.id, fixture.create(&second, "B").await.id);
        let mut racing = JoinSet::new();
        let now = fixture.now();
        for change in [fixture.change(one, &first, &wanted), fixture.change(two, &second, &wanted)] {
            let store: UserStore = fixture.store.clone();
            racing.spawn(async move { store.set_email(&change, now).await.is_ok() });
        }
        let (store, registered) = (fixture.store.clone(), new(&wanted, "C", now));
        racing.spawn(async move { store.create(registered, now).await.is_ok() });
        assert_eq!(racing.join_all().await.into_iter().filter(|won| *won).count(), 1, "{round}");
    }
}

on_each_engine! {
    an_address_is_verified_once,
    a_changed_address_is_found_and_the_one_before_is_kept_for_its_user,
    a_change_expects_an_address_and_is_repeated_without_harm,
    of_two_who_want_an_address_one_gets_it,
}
