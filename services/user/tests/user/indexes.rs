//! No query of the store scans a whole table on PostgreSQL: the server's statistics prove it.

use drystone_backends::Postgres;
use drystone_mesh::{clock::Clock, page::Page};
use drystone_store::{Db, Location};
use drystone_user::{
    DisplayName, Email, MIGRATIONS, NewAccount, UserStore,
    role::{Grant, RoleName},
    store::ActorId,
};
use uuid::Uuid;

/// More executions than PostgreSQL makes custom plans for (five), so that it may use a generic plan.
const ROUNDS: usize = 8;

const ROWS: &str = "
    INSERT INTO drystone_user.account (id, email, email_key, display_name, roles, version, created_at, updated_at)
    SELECT gen_random_uuid(), n || '@crowd.example', n || '@crowd.example', 'One of many', 'member', 1, n, n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_user.role_grant (user_id, role, granted_by, granted_at)
    SELECT id, 'manager', 'operator', 1 FROM drystone_user.account;
    INSERT INTO drystone_user.permission_override (user_id, permission, is_denial, reason, set_by, set_at)
    SELECT id, 'users:read', true, '', 'operator', 1 FROM drystone_user.account;
    ANALYZE";

#[tokio::test]
async fn every_query_of_accounts_uses_an_index() {
    let database = Postgres::shared().await.database().await;
    let location = Location::server("user", database.as_str()).unwrap();
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
            display_name: DisplayName::parse("Ada").unwrap(),
        };
        let (id, email) = (new.id, new.email.clone());
        let name = DisplayName::parse("Countess").unwrap();
        for _ in 0..2 {
            store.create(new.clone(), now).await.unwrap();
        }
        store.find(id).await.unwrap().unwrap();
        store.find_by_email(&email).await.unwrap().unwrap();
        store.list(&Page { size: 50, after: None }).await.unwrap();
        store.list(&Page { size: 50, after: Some(Uuid::from_u128(1 << 127)) }).await.unwrap();
        store.rename(id, &name, Some(1), now).await.unwrap().unwrap();
        store.rename(id, &name, Some(1), now).await.unwrap_err();
        store.rename(id, &name, None, now).await.unwrap().unwrap();
        store.set_roles(id, &[], now).await.unwrap();
        let manager: RoleName = "manager".parse().unwrap();
        let grant = Grant { role: manager.clone(), expires_at: None };
        store.grant_role(ActorId::Operator, id, &grant, now).await.unwrap();
        store.rights(id).await.unwrap().unwrap();
        store.rights_by_email(&email).await.unwrap().unwrap();
        assert_eq!(store.rights_of_all(&[id, Uuid::now_v7()]).await.unwrap().len(), 1);
        store.records(id).await.unwrap();
        store.revoke_role(ActorId::Operator, id, &manager, now).await.unwrap();
    }
    db.close().await;
    let scans = database.scans("drystone_user").await;
    // A page of all accounts, each with its grants, and the administrators.
    for table in ["role_grant", "permission_override"] {
        assert_eq!(scans[table].sequential, 0, "{table}: {:?}", scans[table]);
    }
    let scans = scans["account"];
    assert_eq!(scans.sequential, 0);
    assert!(scans.index >= i64::try_from(ROUNDS * 9).unwrap(), "{scans:?}");
}
