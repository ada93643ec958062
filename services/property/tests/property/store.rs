//! The contract of property stores: one suite, run on each engine.

use std::{any::Any, collections::HashSet, time::Duration};

use drystone_backends::Postgres;
use drystone_mesh::{clock::Clock, page::Page};
use drystone_property::{
    Claim, Content, ContentUpdate, Description, DisplayName, Error, Labels, MIGRATIONS, NewProperty, Property,
    PropertyStore, Quota, Relation,
};
use drystone_store::{Db, Location, run};
use tempfile::TempDir;
use tokio::task::JoinSet;
use uuid::Uuid;

const QUOTA: Quota = Quota { properties: 20, bytes: 5_000, request_ids: 10 };

/// An empty store, a manual clock, and a user who owns properties.
struct Fixture {
    db: Db,
    store: PropertyStore,
    clock: Clock,
    owner: Uuid,
    /// Keeps the database.
    _guard: Box<dyn Any>,
}

impl Fixture {
    async fn sqlite() -> Self {
        let directory = TempDir::new().unwrap();
        let db = Db::open(&directory.path().join("property.db"), MIGRATIONS).await.unwrap();
        Self::with_db(db, directory)
    }

    async fn postgres() -> Self {
        let database = Postgres::shared().await.database().await;
        let db = Db::open(Location::server("property", database.as_str()).unwrap(), MIGRATIONS).await.unwrap();
        Self::with_db(db, database)
    }

    fn with_db(db: Db, guard: impl Any) -> Self {
        let clock = Clock::manual(Clock::system().now());
        Self {
            store: PropertyStore::new(db.clone(), Quota::default()),
            db,
            clock,
            owner: Uuid::now_v7(),
            _guard: Box::new(guard),
        }
    }

    /// The same with [`QUOTA`].
    fn limited(self) -> Self {
        Self { store: PropertyStore::new(self.db.clone(), QUOTA), ..self }
    }

    async fn create(&self, name: &str) -> Property {
        self.store.create(new(self.owner, name), self.clock.now()).await.unwrap()
    }
}

fn new(owner_id: Uuid, name: &str) -> NewProperty {
    let content = Content {
        display_name: DisplayName::parse(name).unwrap(),
        description: Description::parse("By the river").unwrap(),
        labels: labels(&[("kind", "barn")]),
    };
    NewProperty { id: Uuid::now_v7(), owner_id, request_id: None, content }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::parse(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))).unwrap()
}

fn rename(name: &str) -> ContentUpdate {
    ContentUpdate { display_name: Some(DisplayName::parse(name).unwrap()), ..ContentUpdate::default() }
}

async fn a_created_property_is_found_unchanged(fixture: Fixture) {
    let wanted = new(fixture.owner, "Barn");
    let now = fixture.clock.now();
    let created = fixture.store.create(wanted.clone(), now).await.unwrap();
    assert_eq!((created.id, created.owner_id, &created.content), (wanted.id, fixture.owner, &wanted.content));
    assert_eq!((created.created_at, created.updated_at), (now, now));
    assert_eq!(fixture.store.find(fixture.owner, created.id).await.unwrap(), Some(created));
}

async fn a_user_has_a_quota_of_properties(fixture: Fixture) {
    let fixture = fixture.limited();
    let mut last = fixture.create("Barn").await;
    for _ in 1..QUOTA.properties {
        last = fixture.create("Barn").await;
    }
    let create = async |owner| fixture.store.create(new(owner, "Barn"), fixture.clock.now()).await;
    assert!(matches!(create(fixture.owner).await, Err(Error::QuotaExceeded(QUOTA))));
    create(Uuid::now_v7()).await.expect("another user has their own quota");
    assert!(fixture.store.delete(fixture.owner, last.id, None).await.unwrap());
    create(fixture.owner).await.expect("one was deleted");
    assert!(create(fixture.owner).await.is_err());
}

async fn a_user_has_a_quota_of_bytes(fixture: Fixture) {
    let fixture = fixture.limited();
    let (owner, now) = (fixture.owner, fixture.clock.now());
    let describe = |length: usize| ContentUpdate {
        description: Some(Description::parse(&"x".repeat(length)).unwrap()),
        ..ContentUpdate::default()
    };
    let (one, other) = (fixture.create("Barn").await, fixture.create("Shed").await);
    let update = async |id, length| fixture.store.update(owner, id, &describe(length), None, now).await;
    update(one.id, 2_000).await.unwrap();
    update(other.id, 2_000).await.unwrap();
    let third = fixture.create("Hut").await;
    assert!(matches!(update(third.id, 2_000).await, Err(Error::QuotaExceeded(QUOTA))));
    let unchanged = fixture.store.find(owner, third.id).await.unwrap().unwrap();
    assert_eq!(unchanged, third);
    // Shortening or deleting releases bytes.
    update(one.id, 10).await.unwrap();
    update(third.id, 2_000).await.unwrap();
    update(one.id, 1_500).await.expect_err("full again");
    assert!(fixture.store.delete(owner, other.id, None).await.unwrap());
    update(one.id, 1_500).await.unwrap();
}

async fn a_user_has_a_quota_of_request_ids(fixture: Fixture) {
    let fixture = fixture.limited();
    let create = async |owner, request_id| {
        let request = NewProperty { request_id, ..new(owner, "Barn") };
        let created = fixture.store.create(request, fixture.clock.now()).await?;
        // Deleting does not release the request id.
        fixture.store.delete(owner, created.id, None).await.map(drop)
    };
    let ids: Vec<Uuid> = (0..QUOTA.request_ids).map(|_| Uuid::now_v7()).collect();
    for id in &ids {
        create(fixture.owner, Some(*id)).await.unwrap();
    }
    let refused = create(fixture.owner, Some(Uuid::now_v7())).await;
    assert!(matches!(refused, Err(Error::TooManyRequestIds(QUOTA))), "{refused:?}");
    assert!(matches!(create(fixture.owner, Some(ids[0])).await, Err(Error::NotFound)), "repetitions are answered");
    create(fixture.owner, None).await.expect("no request id");
    create(Uuid::now_v7(), Some(ids[0])).await.expect("another user has their own quota");
    fixture.clock.advance(Duration::from_hours(25));
    fixture.store.forget_request_ids(fixture.clock.now() - drystone_store::request_id::LIFETIME).await.unwrap();
    create(fixture.owner, Some(Uuid::now_v7())).await.expect("the request ids are forgotten");
}

async fn a_request_id_is_forgotten_after_its_lifetime(fixture: Fixture) {
    let (store, clock) = (&fixture.store, &fixture.clock);
    let request = NewProperty { request_id: Some(Uuid::now_v7()), ..new(fixture.owner, "Barn") };
    let first = store.create(request.clone(), clock.now()).await.unwrap();
    let forget = async || store.forget_request_ids(clock.now() - drystone_store::request_id::LIFETIME).await.unwrap();
    clock.advance(Duration::from_hours(24));
    assert_eq!(forget().await, 0);
    let again = NewProperty { id: Uuid::now_v7(), ..request.clone() };
    assert_eq!(store.create(again, clock.now()).await.unwrap().id, first.id);
    clock.advance(Duration::from_secs(1));
    assert_eq!(forget().await, 1);
    let again = NewProperty { id: Uuid::now_v7(), ..request };
    assert_ne!(store.create(again, clock.now()).await.unwrap().id, first.id);
}

/// Two days of properties that are created and deleted, each with a request id.
async fn simulated_days_leave_only_what_is_live(fixture: Fixture) {
    let (store, clock) = (&fixture.store, &fixture.clock);
    let size = async || -> i64 {
        run!(fixture.db.reader(), |db| {
            sqlx::query_scalar(
                "SELECT (SELECT COUNT(*) FROM property) + (SELECT COUNT(*) FROM property_usage)
                     + (SELECT COUNT(*) FROM creation)",
            )
            .fetch_one(db)
            .await
            .unwrap()
        })
    };
    let kept = fixture.create("Barn").await;
    let mut sizes = Vec::new();
    for hour in 0..74 {
        for owner in [fixture.owner, Uuid::now_v7()].into_iter().filter(|_| hour < 48) {
            let request = NewProperty { request_id: Some(Uuid::now_v7()), ..new(owner, "Hut") };
            let created = store.create(request, clock.now()).await.unwrap();
            assert!(store.delete(owner, created.id, None).await.unwrap());
        }
        clock.advance(Duration::from_hours(1));
        store.forget_request_ids(clock.now() - drystone_store::request_id::LIFETIME).await.unwrap();
        sizes.push(size().await);
    }
    assert!(sizes[24..48].iter().all(|size| *size <= sizes[24]), "the sizes grow: {sizes:?}");
    // The property, and the usage of its owner.
    assert_eq!(sizes[73], 2, "{sizes:?}");
    assert!(store.find(fixture.owner, kept.id).await.unwrap().is_some());
}

/// Opens a database of the previous release that has properties.
async fn usage_is_counted_for_properties_of_the_previous_release(location: Location) {
    let owner = Uuid::now_v7();
    let db = Db::open(location.clone(), &MIGRATIONS[..1]).await.unwrap();
    for _ in 0..QUOTA.properties {
        run!(db.writer(), |db| {
            sqlx::query(
                "INSERT INTO property
                     (id, owner_id, display_name, description, labels, version, created_at, updated_at)
                 VALUES ($1, $2, 'Barn', '', $3, 1, 1, 1)",
            )
            .bind(Uuid::now_v7())
            .bind(owner)
            .bind(sqlx::types::Json(std::collections::BTreeMap::<String, String>::new()))
            .execute(db)
            .await
            .unwrap();
        });
    }
    db.close().await;
    let store = PropertyStore::new(Db::open(location, MIGRATIONS).await.unwrap(), QUOTA);
    let now = Clock::system().now();
    assert!(matches!(store.create(new(owner, "Barn"), now).await, Err(Error::QuotaExceeded(QUOTA))));
}

#[tokio::test]
async fn usage_is_counted_for_properties_of_the_previous_release_on_sqlite() {
    let directory = TempDir::new().unwrap();
    let location = Location::from(&directory.path().join("property.db"));
    usage_is_counted_for_properties_of_the_previous_release(location).await;
}

#[tokio::test]
async fn usage_is_counted_for_properties_of_the_previous_release_on_postgres() {
    let database = Postgres::shared().await.database().await;
    let location = Location::server("property", database.as_str()).unwrap();
    usage_is_counted_for_properties_of_the_previous_release(location).await;
}

async fn a_missing_property_is_none(fixture: Fixture) {
    let (store, owner, id, now) = (&fixture.store, fixture.owner, Uuid::now_v7(), fixture.clock.now());
    assert_eq!(store.find(owner, id).await.unwrap(), None);
    assert_eq!(store.update(owner, id, &rename("Barn"), None, now).await.unwrap(), None);
    assert_eq!(store.update(owner, id, &rename("Barn"), Some(1), now).await.unwrap(), None);
    assert!(!store.delete(owner, id, None).await.unwrap());
    assert!(!store.delete(owner, id, Some(1)).await.unwrap());
    assert_eq!(store.claims(owner, 64).await.unwrap(), []);
}

async fn a_property_of_another_user_is_not_found(fixture: Fixture) {
    let barn = fixture.create("Barn").await;
    let (store, other_user, now) = (&fixture.store, Uuid::now_v7(), fixture.clock.now());
    assert_eq!(store.find(other_user, barn.id).await.unwrap(), None);
    assert_eq!(store.update(other_user, barn.id, &rename("Mine"), None, now).await.unwrap(), None);
    assert_eq!(store.update(other_user, barn.id, &rename("Mine"), Some(barn.version + 1), now).await.unwrap(), None);
    assert!(!store.delete(other_user, barn.id, None).await.unwrap());
    assert_eq!(store.list(other_user, &Page { size: 10, after: None }).await.unwrap(), []);
    assert_eq!(store.claims(other_user, 64).await.unwrap(), []);
    assert_eq!(store.find(fixture.owner, barn.id).await.unwrap(), Some(barn));
}

async fn a_retried_creation_returns_the_property_that_it_created(fixture: Fixture) {
    let request_id = Some(Uuid::now_v7());
    let create = |name: &str| {
        let new = NewProperty { request_id, ..new(fixture.owner, name) };
        fixture.store.create(new, fixture.clock.now())
    };
    let barn = create("Barn").await.unwrap();
    assert_eq!(create("Barn").await.unwrap(), barn);

    // The content of the request is compared, not the current content of the property.
    let change = rename("Shed");
    let shed = fixture.store.update(fixture.owner, barn.id, &change, None, fixture.clock.now()).await.unwrap().unwrap();
    assert_eq!(create("Barn").await.unwrap(), shed);
    assert!(matches!(create("Shed").await, Err(Error::RequestIdReused)));

    assert!(fixture.store.delete(fixture.owner, barn.id, None).await.unwrap());
    assert!(matches!(create("Barn").await, Err(Error::NotFound)), "a late retry does not recreate the property");
    assert_eq!(fixture.store.list(fixture.owner, &Page { size: 10, after: None }).await.unwrap(), []);
}

async fn request_ids_are_scoped_to_the_owner_and_optional(fixture: Fixture) {
    let request_id = Some(Uuid::now_v7());
    let mut ids = HashSet::new();
    for owner in [Uuid::now_v7(), Uuid::now_v7()] {
        let new = NewProperty { request_id, ..new(owner, "Barn") };
        ids.insert(fixture.store.create(new, fixture.clock.now()).await.unwrap().id);
    }
    ids.insert(fixture.create("Barn").await.id);
    ids.insert(fixture.create("Barn").await.id);
    assert_eq!(ids.len(), 4);
}

async fn concurrent_retries_return_the_same_property(fixture: Fixture) {
    let request_id = Some(Uuid::now_v7());
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let (store, now) = (fixture.store.clone(), fixture.clock.now());
        let new = NewProperty { request_id, ..new(fixture.owner, "Barn") };
        tasks.spawn(async move { store.create(new, now).await.unwrap().id });
    }
    let ids: HashSet<Uuid> = tasks.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(fixture.store.list(fixture.owner, &Page { size: 10, after: None }).await.unwrap().len(), 1);
}

async fn an_update_changes_only_its_fields_and_only_at_the_expected_version(fixture: Fixture) {
    let first = fixture.create("Barn").await;
    fixture.clock.advance(Duration::from_secs(1));
    let now = fixture.clock.now();
    let update = |change: ContentUpdate, version: Option<i64>| {
        let (store, owner) = (fixture.store.clone(), fixture.owner);
        async move { store.update(owner, first.id, &change, version, now).await }
    };

    let renamed = update(rename("Shed"), Some(first.version)).await.unwrap().unwrap();
    assert_ne!(renamed.version, first.version);
    assert_eq!((renamed.created_at, renamed.updated_at), (first.created_at, now));
    let display_name = DisplayName::parse("Shed").unwrap();
    assert_eq!(renamed.content, Content { display_name: display_name.clone(), ..first.content.clone() });

    assert!(matches!(update(rename("Barn"), Some(first.version)).await, Err(Error::Stale)));
    assert_eq!(fixture.store.find(fixture.owner, first.id).await.unwrap(), Some(renamed));

    let change = ContentUpdate {
        display_name: None,
        description: Some(Description::parse("").unwrap()),
        labels: Some(labels(&[("a", "1"), ("b", "2")])),
    };
    let changed = update(change, None).await.unwrap().unwrap();
    let description = Description::parse("").unwrap();
    assert_eq!(changed.content, Content { display_name, description, labels: labels(&[("b", "2"), ("a", "1")]) });
}

async fn an_update_without_changes_keeps_the_version(fixture: Fixture) {
    let created = fixture.create("Barn").await;
    let labelled = ContentUpdate { labels: Some(labels(&[("a", "1"), ("b", "2")])), ..ContentUpdate::default() };
    let first = fixture.store.update(fixture.owner, created.id, &labelled, None, fixture.clock.now()).await;
    let first = first.unwrap().unwrap();
    assert_ne!(first.version, created.version);
    fixture.clock.advance(Duration::from_secs(1));
    let now = fixture.clock.now();
    let same = |version| {
        let content = first.content.clone();
        let all = ContentUpdate {
            display_name: Some(content.display_name),
            description: Some(content.description),
            labels: Some(content.labels),
        };
        let (store, owner, id) = (fixture.store.clone(), fixture.owner, first.id);
        async move { store.update(owner, id, &all, version, now).await }
    };
    assert_eq!(same(None).await.unwrap().as_ref(), Some(&first));
    assert_eq!(same(Some(first.version)).await.unwrap().as_ref(), Some(&first));
    assert!(matches!(same(Some(created.version)).await, Err(Error::Stale)));

    // One changed field of several increments the version.
    let change = ContentUpdate { labels: Some(labels(&[("a", "1")])), ..rename("Barn") };
    let changed = fixture.store.update(fixture.owner, first.id, &change, None, now).await.unwrap().unwrap();
    assert_eq!((changed.version, changed.updated_at), (first.version + 1, now));
}

async fn of_concurrent_updates_to_one_version_one_succeeds(fixture: Fixture) {
    let barn = fixture.create("Barn").await;
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let (store, owner, now) = (fixture.store.clone(), fixture.owner, fixture.clock.now());
        let change = rename(&format!("Barn {number}"));
        tasks.spawn(async move { store.update(owner, barn.id, &change, Some(barn.version), now).await });
    }
    let (won, lost): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|result| matches!(result, Err(Error::Stale))));
    let winner = won.into_iter().next().unwrap().unwrap();
    assert_eq!(fixture.store.find(fixture.owner, barn.id).await.unwrap(), winner);
}

async fn a_property_is_deleted_once_and_only_at_the_expected_version(fixture: Fixture) {
    let barn = fixture.create("Barn").await;
    let delete = |version| fixture.store.delete(fixture.owner, barn.id, version);
    assert!(matches!(delete(Some(barn.version + 1)).await, Err(Error::Stale)));
    assert!(delete(Some(barn.version)).await.unwrap());
    assert!(!delete(Some(barn.version)).await.unwrap());
    assert_eq!(fixture.store.find(fixture.owner, barn.id).await.unwrap(), None);
}

async fn claims_are_newest_first_and_limited(fixture: Fixture) {
    let mut expected = Vec::new();
    for number in 0..5 {
        let property_id = fixture.create(&format!("Barn {number}")).await.id;
        expected.insert(0, Claim { property_id, relation: Relation::Owner });
    }
    assert_eq!(fixture.store.claims(fixture.owner, 64).await.unwrap(), expected);
    assert_eq!(fixture.store.claims(fixture.owner, 3).await.unwrap(), expected[..3]);
}

async fn pages_contain_every_property_once_during_concurrent_creations(fixture: Fixture) {
    let mut expected = Vec::new();
    for number in 0..25 {
        expected.push(fixture.create(&format!("Barn {number}")).await.id);
    }
    let (store, clock, owner) = (fixture.store.clone(), fixture.clock.clone(), fixture.owner);
    let concurrent = tokio::spawn(async move {
        for number in 25..50 {
            store.create(new(owner, &format!("Barn {number}")), clock.now()).await.unwrap();
            store.create(new(Uuid::now_v7(), "Other"), clock.now()).await.unwrap();
        }
    });
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let rows = fixture.store.list(owner, &Page { size: 4, after }).await.unwrap();
        assert!(rows.len() <= 5, "a page plus one row, which shows that there is a next page");
        assert!(rows.iter().all(|property| property.owner_id == owner));
        seen.extend(rows.iter().take(4).map(|property| property.id));
        after = seen.last().copied();
        if rows.len() <= 4 {
            break;
        }
    }
    concurrent.await.unwrap();
    assert_eq!(seen[..25], expected);
    assert!(seen.is_sorted());
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len());
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
            a_created_property_is_found_unchanged,
            a_user_has_a_quota_of_properties,
            a_user_has_a_quota_of_bytes,
            a_user_has_a_quota_of_request_ids,
            simulated_days_leave_only_what_is_live,
            a_request_id_is_forgotten_after_its_lifetime,
            a_missing_property_is_none,
            a_property_of_another_user_is_not_found,
            a_retried_creation_returns_the_property_that_it_created,
            request_ids_are_scoped_to_the_owner_and_optional,
            concurrent_retries_return_the_same_property,
            an_update_changes_only_its_fields_and_only_at_the_expected_version,
            an_update_without_changes_keeps_the_version,
            of_concurrent_updates_to_one_version_one_succeeds,
            a_property_is_deleted_once_and_only_at_the_expected_version,
            claims_are_newest_first_and_limited,
            pages_contain_every_property_once_during_concurrent_creations,
        })+
    };
}

contract!(sqlite, postgres);
