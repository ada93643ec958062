//! Profiles, deletion, lists, imports and totals in the store, on both engines.

use std::{any::Any, collections::BTreeSet, time::Duration};

use chrono::TimeDelta;
use drystone_backends::Postgres;
use drystone_mesh::{
    clock::{Clock, Timestamp},
    id,
};
use drystone_store::{
    Db, Location,
    request_id::{self, Creation},
    run,
};
use drystone_user::{
    Account, DisplayName, Email, Error, MIGRATIONS, NewAccount, Profile, ProfileChange, Status, UserStore,
    account::TelegramId,
    role::{Effect, Grant, Override, Permission, Refused, evaluation::active_roles},
    search,
    store::{ActorId, Import, ListOrder, ListPage, ListQuery, Provisioned, StatusFilter},
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use uuid::Uuid;

const RETENTION: Duration = Duration::from_hours(24);

struct Fixture {
    store: UserStore,
    db: Db,
    clock: Clock,
    _guard: Box<dyn Any>,
}

impl Fixture {
    async fn sqlite() -> Self {
        let directory = TempDir::new().unwrap();
        let db = Db::open(&directory.path().join("user.db"), MIGRATIONS).await.unwrap();
        Self::with_db(db, directory)
    }

    async fn postgres() -> Self {
        let database = Postgres::shared().await.database().await;
        let db = Db::open(Location::server("user", database.as_str()).unwrap(), MIGRATIONS).await.unwrap();
        Self::with_db(db, database)
    }

    fn with_db(db: Db, guard: impl Any) -> Self {
        let clock = Clock::manual(Clock::system().now());
        let declared = ["users:read", "users:write", "roles:grant", "roles:read", "roles:write"]
            .map(|name| Permission { name: name.to_owned(), description: String::new(), registered_by: None });
        Self { store: UserStore::new(db.clone(), declared.to_vec()), db, clock, _guard: Box::new(guard) }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn create(&self, email: &str, name: &str) -> Account {
        self.store.create(new(email, name, self.now()), self.now()).await.unwrap()
    }

    async fn user(&self, email: &str, role: &str) -> Uuid {
        let user = self.create(email, "Ada").await;
        let grant = Grant { role: role.parse().unwrap(), expires_at: None };
        self.store.grant_role(ActorId::Operator, user.id, &grant, self.now()).await.unwrap();
        user.id
    }

    async fn find(&self, id: Uuid) -> Account {
        self.store.find(id).await.unwrap().unwrap()
    }

    async fn delete(&self, by: ActorId, id: Uuid) -> Result<Account, Error> {
        Ok(self.store.delete(by, id, None, RETENTION, self.now()).await?.value)
    }

    /// The kinds and keys of the messages in the outbox, oldest first.
    async fn messages(&self) -> Vec<(String, String)> {
        run!(self.db.reader(), |db| {
            sqlx::query_as("SELECT kind, key FROM outbox ORDER BY sequence").fetch_all(db).await.unwrap()
        })
    }

    /// The local parts of the addresses of all pages of this size.
    async fn list(&self, query: &ListQuery, size: u32) -> Vec<String> {
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

fn new(email: &str, name: &str, now: Timestamp) -> NewAccount {
    let profile = Profile::new(DisplayName::parse(name).unwrap());
    NewAccount { id: id::v7_at(now), email: Email::parse(email).unwrap(), profile }
}

fn import(email: &str, now: Timestamp) -> Import {
    Import {
        account: new(email, "Ada Lovelace", now),
        external_id: email.to_owned(),
        roles: Vec::new(),
        status: Status::Active,
        telegram_id: None,
        created_at: now,
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
    assert_eq!(kinds[kinds.len() - 3..], ["end_user_sessions", "forget_password", "forget_properties"]);
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

async fn an_import_creates_what_it_can(fixture: Fixture) {
    let now = fixture.now();
    let old = now - TimeDelta::days(100);
    fixture.create("taken@example.com", "Eve").await;
    let full = Import {
        roles: vec!["manager".parse().unwrap(), "member".parse().unwrap()],
        status: Status::Disabled,
        telegram_id: TelegramId::new(7),
        created_at: old,
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

macro_rules! contract {
    ($backend:ident: $($test:ident,)+) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(super::Fixture::$backend().await).await;
                }
            )+
        }
    };
    ($($backend:ident),+) => {
        $(contract! { $backend:
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
            lists_are_filtered_and_ordered,
            accounts_are_found_by_words_of_names_and_by_addresses,
            pages_are_complete_and_without_repeats_during_changes,
            an_import_creates_what_it_can,
            concurrent_imports_of_one_file_create_each_account_once,
            totals_follow_every_change,
            a_page_ends_after_many_accounts_that_do_not_match,
            imports_with_the_same_ids_and_other_addresses_are_each_answered,
            the_words_of_older_accounts_are_completed,
        })+
    };
}

contract!(sqlite, postgres);
