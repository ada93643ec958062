//! No query of the store scans a whole table on PostgreSQL: the server's statistics prove it.

use std::time::Duration;

use drystone_backends::Postgres;
use drystone_mesh::clock::{Clock, Timestamp};
use drystone_store::{Db, Location, PoolConfig, request_id::Creation};
use drystone_user::{
    DisplayName, Email, MIGRATIONS, NewAccount, Profile, ProfileChange, Status, UserStore,
    account::TelegramId,
    role::{Grant, RoleName},
    store::{ActorId, Import, ListOrder, ListPage, ListQuery, StatusFilter},
};
use uuid::Uuid;

/// More executions than PostgreSQL makes custom plans for (five), so that it uses a generic plan where it thinks that cheaper.
const ROUNDS: usize = 8;

const ROWS: &str = "
    INSERT INTO drystone_user.account (id, email, email_key, display_name, roles, version, created_at, updated_at)
    SELECT gen_random_uuid(), n || '@crowd.example', n || '@crowd.example', 'One of many', 'member', 1, n, n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_user.account_word (word, user_id)
    SELECT word, id FROM drystone_user.account, (VALUES ('one'), ('of'), ('many')) AS words (word);
    UPDATE drystone_user.account SET has_words = 1;
    INSERT INTO drystone_user.imported_account (source, external_id, user_id)
    SELECT 'other', email_key, id FROM drystone_user.account;
    INSERT INTO drystone_user.creation (owner_id, request_id, resource_id, fingerprint, created_at)
    SELECT gen_random_uuid(), id, id, '', 1 FROM drystone_user.account;
    INSERT INTO drystone_user.role_grant (user_id, role, granted_by, granted_at)
    SELECT id, 'manager', 'operator', 1 FROM drystone_user.account;
    INSERT INTO drystone_user.permission_override (user_id, permission, is_denial, reason, set_by, set_at)
    SELECT id, 'users:read', true, '', 'operator', 1 FROM drystone_user.account;
    ANALYZE";

/// Each order, and each filter with the order that it is fast with.
fn queries(now: Timestamp) -> Vec<ListQuery> {
    let all = ListQuery::default;
    let by_email = || ListQuery { order: ListOrder::Email, ..all() };
    vec![
        all(),
        ListQuery { is_descending: true, ..all() },
        by_email(),
        ListQuery { is_descending: true, ..by_email() },
        ListQuery { status: StatusFilter::Only(Status::Disabled), ..all() },
        ListQuery { status: StatusFilter::Only(Status::Active), ..all() },
        ListQuery { role: Some("manager".parse().unwrap()), ..all() },
        ListQuery { email: Some("ada@example.com".to_owned()), ..all() },
        ListQuery { email_prefix: Some("12".to_owned()), ..by_email() },
        ListQuery { created_from: Some(now), created_before: Some(now), ..all() },
        ListQuery { prefixes: vec!["one".to_owned()], ..all() },
        ListQuery { prefixes: vec!["one".to_owned(), "12".to_owned()], ..all() },
    ]
}

#[tokio::test]
async fn every_query_of_accounts_uses_an_index() {
    let database = Postgres::shared().await.database().await;
    let location = Location::server("user", database.as_str())
        .unwrap()
        // Each connection has plans of its own.
        .with_pool(PoolConfig { connections: 1, ..PoolConfig::default() });
    Db::open(location.clone(), MIGRATIONS).await.unwrap().close().await;
    database.run(ROWS).await;
    database.reset_scan_counts().await;

    let db = Db::open(location, MIGRATIONS).await.unwrap();
    let store = UserStore::new(db.clone(), Vec::new());
    let now = Clock::system().now();
    for round in 0..ROUNDS {
        let new = NewAccount {
            id: Uuid::now_v7(),
            email: Email::parse(&format!("ada{round}@example.com")).unwrap(),
            profile: Profile::new(DisplayName::parse("Ada").unwrap()),
        };
        let (id, email) = (new.id, new.email.clone());
        let name = DisplayName::parse("Countess").unwrap();
        for _ in 0..2 {
            store.create(new.clone(), now).await.unwrap();
        }
        store.find(id).await.unwrap().unwrap();
        store.find_by_email(&email).await.unwrap().unwrap();
        for query in queries(now) {
            for after in [None, Some(("m".to_owned(), Uuid::from_u128(1 << 127)))] {
                store.list(&query, &ListPage { size: 50, after }, now).await.unwrap();
            }
        }
        let (by, rename) = (ActorId::User(id), |name: DisplayName| ProfileChange {
            display_name: Some(name),
            ..ProfileChange::default()
        });
        let other = rename(DisplayName::parse("Lady").unwrap());
        store.update_profile(by, id, &rename(name), Some(1), now).await.unwrap();
        store.update_profile(by, id, &other, Some(1), now).await.unwrap_err();
        store.update_profile(by, id, &other, None, now).await.unwrap();
        let telegram_id = TelegramId::new(1 + i64::try_from(round).unwrap());
        store.set_telegram_id(by, id, telegram_id, now).await.unwrap();
        store.find_by_telegram_id(telegram_id.unwrap()).await.unwrap().unwrap();
        let request = Creation { owner: id, request_id: id, resource: id, fingerprint: [0; 32] };
        for _ in 0..2 {
            let email = Email::parse(&format!("eve{round}@example.com")).unwrap();
            let new = NewAccount { id: Uuid::now_v7(), email, ..new.clone() };
            let _ = store.create_for(new, Some(request), now).await;
            let import = Import {
                account: NewAccount {
                    id: Uuid::now_v7(),
                    email: Email::parse(&format!("bob{round}@example.com")).unwrap(),
                    profile: Profile::new(DisplayName::parse("Bob").unwrap()),
                },
                external_id: format!("bob{round}"),
                roles: vec!["manager".parse().unwrap()],
                status: Status::Active,
                telegram_id: None,
                created_at: now,
                email_verified: false,
            };
            store.provision("other", &[import], now).await.unwrap();
        }
        store.complete_words().await.unwrap();
        store.purge_due(now).await.unwrap();
        store.set_roles(id, &[], now).await.unwrap();
        let manager: RoleName = "manager".parse().unwrap();
        let grant = Grant { role: manager.clone(), expires_at: None };
        store.grant_role(ActorId::Operator, id, &grant, now).await.unwrap();
        store.rights(id).await.unwrap().unwrap();
        store.rights_by_email(&email).await.unwrap().unwrap();
        assert_eq!(store.rights_of_all(&[id, Uuid::now_v7()]).await.unwrap().len(), 1);
        store.records(id).await.unwrap();
        store.revoke_role(ActorId::Operator, id, &manager, now).await.unwrap();
        store.set_disabled(ActorId::Operator, id, true, now).await.unwrap();
        store.delete(ActorId::Operator, id, None, Duration::ZERO, now).await.unwrap();
        store.undelete(ActorId::Operator, id, now).await.unwrap();
        store.delete(ActorId::Operator, id, None, Duration::ZERO, now).await.unwrap();
        assert!(store.purge(ActorId::Operator, id, now).await.unwrap());
    }
    db.close().await;
    let scans = database.scans("drystone_user").await;
    // A page of all accounts, each with its grants, and the administrators.
    for table in ["role_grant", "permission_override", "account_word", "imported_account", "creation"] {
        assert_eq!(scans[table].sequential, 0, "{table}: {:?}", scans[table]);
    }
    let scans = scans["account"];
    assert_eq!(scans.sequential, 0);
    assert!(scans.index >= i64::try_from(ROUNDS * 9).unwrap(), "{scans:?}");
}
