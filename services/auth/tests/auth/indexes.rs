//! No query of the store scans a growing table on PostgreSQL, as the server's scan counters show.

use std::time::Duration;

use drystone_auth::{
    AuthStore, MIGRATIONS,
    credential::Credential,
    link::{Link, Purpose},
    sign_in_history::{Method, Outcome, SignInRecord},
};
use drystone_backends::Postgres;
use drystone_mesh::{clock::Clock, page::Page};
use drystone_store::{Db, Location, PoolConfig};
use uuid::Uuid;

/// More executions than PostgreSQL makes custom plans for (five), so that it uses a generic plan where it thinks that cheaper.
const ROUNDS: usize = 8;

const MANY_ROWS: &str = "
    INSERT INTO drystone_auth.credential (user_id, password_hash, request_id, created_at, updated_at)
    SELECT gen_random_uuid(), 'one of many', gen_random_uuid(), n, n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.sign_in (id, user_id, created_at, method, outcome, address, device, is_new_device)
    SELECT gen_random_uuid(), gen_random_uuid(), n, 1, 1 + n % 2, '', '', 0
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_auth.link (id, purpose, user_id, created_at, expires_at)
    SELECT gen_random_uuid(), 'password_reset', gen_random_uuid(), n, 9000000000000000 + n
    FROM generate_series(1, 20000) AS n;
    ANALYZE";

#[tokio::test]
async fn every_credential_is_found_by_an_index() {
    let database = Postgres::shared().await.database().await;
    let location = Location::server("auth", database.as_str())
        .unwrap()
        // Each connection has plans of its own.
        .with_pool(PoolConfig { connections: 1, ..PoolConfig::default() });
    Db::open(location.clone(), MIGRATIONS).await.unwrap().close().await;
    database.run(MANY_ROWS).await;
    database.reset_scan_counts().await;

    let db = Db::open(location, MIGRATIONS).await.unwrap();
    let store = AuthStore::new(db.clone());
    let now = Clock::system().now();
    let hash = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for _ in 0..ROUNDS {
        let request_id = Uuid::now_v7();
        let new = Credential {
            user_id: Uuid::now_v7(),
            password_hash: hash.parse().unwrap(),
            form: drystone_auth::password::typed_password::PasswordForm::Opaque,
            request_id: Some(request_id),
            pending_since: Some(now),
            created_at: now,
            updated_at: now,
            reset_required_at: None,
            recovered_at: None,
        };
        store.insert_credential(&new).await.unwrap();
        store.credential(new.user_id).await.unwrap().unwrap();
        store.resume_credential(request_id, now).await.unwrap().unwrap();
        store.replace_password_hash(new.user_id, &new.password_hash, &new.password_hash, new.form, now).await.unwrap();
        let cutoff = now + Duration::from_secs(1);
        assert_eq!(store.pending_credentials(cutoff, 10).await.unwrap(), [new.user_id]);
        assert!(store.delete_pending_credential(new.user_id, cutoff).await.unwrap());
        store.confirm_credential(new.user_id).await.unwrap();
        store.insert_credential(&Credential { request_id: None, pending_since: None, ..new.clone() }).await.unwrap();
        let sign_in = SignInRecord {
            id: Uuid::now_v7(),
            user_id: new.user_id,
            at: now,
            method: Method::Password,
            outcome: Outcome::Succeeded,
            address: String::new(),
            device: String::new(),
            is_new_device: true,
            session_id: None,
        };
        assert!(store.insert_success(&sign_in, &new, &[]).await.unwrap());
        store
            .insert_failure(&SignInRecord { id: Uuid::now_v7(), outcome: Outcome::WrongPassword, ..sign_in })
            .await
            .unwrap();
        assert!(store.has_signed_in(new.user_id).await.unwrap());
        let page = Page { size: 10, after: None };
        assert_eq!(store.sign_ins(new.user_id, &page, now - Duration::from_secs(1)).await.unwrap().len(), 2);
        let link = Link::new(
            Uuid::now_v7(),
            Purpose::EmailVerification,
            new.user_id,
            format!("{}@example.com", new.user_id),
            now,
        );
        store.insert_link(&link, 5, now - Duration::from_secs(1)).await.unwrap().unwrap();
        store.use_link(&link, &[Purpose::PasswordReset], None, &[], now).await.unwrap();
    }
    db.close().await;
    let scans = database.scans("drystone_auth").await;
    for table in ["sign_in", "link"] {
        assert_eq!(scans[table].sequential, 0, "{table}: {:?}", scans[table]);
    }
    let scans = scans["credential"];
    assert_eq!(scans.sequential, 0);
    assert!(scans.index >= i64::try_from(ROUNDS * 6).unwrap(), "{scans:?}");
}
