//! No query of the store scans a whole table on PostgreSQL: the server's statistics prove it.

use drystone_backends::Postgres;
use drystone_mesh::{clock::Clock, page::Page};
use drystone_property::{
    Content, ContentUpdate, Description, DisplayName, Labels, MIGRATIONS, NewProperty, PropertyStore, Quota,
};
use drystone_store::{Db, Location, PoolConfig};
use uuid::Uuid;

/// More executions than PostgreSQL makes custom plans for (five), so that it uses a generic plan where it thinks that cheaper.
const ROUNDS: usize = 8;

const ROWS: &str = "
    INSERT INTO drystone_property.property
        (id, owner_id, display_name, description, labels, version, created_at, updated_at)
    SELECT gen_random_uuid(), gen_random_uuid(), 'One of many', 'By the river', '{}', 1, n, n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_property.creation (owner_id, request_id, property_id, fingerprint, created_at)
    SELECT owner_id, gen_random_uuid(), id, '', created_at
    FROM drystone_property.property;
    ANALYZE";

#[tokio::test]
async fn every_query_of_properties_uses_an_index() {
    let database = Postgres::shared().await.database().await;
    let location = Location::server("property", database.as_str())
        .unwrap()
        // Each connection has plans of its own.
        .with_pool(PoolConfig { connections: 1, ..PoolConfig::default() });
    Db::open(location.clone(), MIGRATIONS).await.unwrap().close().await;
    database.run(ROWS).await;
    database.reset_scan_counts().await;

    let db = Db::open(location, MIGRATIONS).await.unwrap();
    let store = PropertyStore::new(db.clone(), Quota::default());
    let now = Clock::system().now();
    for _ in 0..ROUNDS {
        let owner = Uuid::now_v7();
        let content = Content {
            display_name: DisplayName::parse("Barn").unwrap(),
            description: Description::parse("").unwrap(),
            labels: Labels::parse([]).unwrap(),
        };
        let new = NewProperty { id: Uuid::now_v7(), owner_id: owner, request_id: Some(Uuid::now_v7()), content };
        let id = new.id;
        for _ in 0..2 {
            store.create(new.clone(), now).await.unwrap();
        }
        store.find(owner, id).await.unwrap().unwrap();
        store.list(owner, &Page { size: 50, after: None }).await.unwrap();
        store.list(owner, &Page { size: 50, after: Some(id) }).await.unwrap();
        store.claims(owner, 64).await.unwrap();
        let update =
            ContentUpdate { display_name: Some(DisplayName::parse("Shed").unwrap()), ..ContentUpdate::default() };
        store.update(owner, id, &update, Some(1), now).await.unwrap().unwrap();
        store.update(owner, id, &update, Some(1), now).await.unwrap_err();
        store.delete(owner, id, Some(1)).await.unwrap_err();
        assert!(store.delete(owner, id, None).await.unwrap());
        store.forget_request_ids(chrono::DateTime::UNIX_EPOCH).await.unwrap();
    }
    db.close().await;
    let scans = database.scans("drystone_property").await;
    assert_eq!((scans["property"].sequential, scans["creation"].sequential), (0, 0));
    assert!(scans["property"].index >= i64::try_from(ROUNDS * 9).unwrap(), "{scans:?}");
}
