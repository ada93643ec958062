//! No query of the store scans a whole table on PostgreSQL: the server's statistics prove it.

use std::time::Duration;

use drystone_backends::Postgres;
use drystone_mesh::{
    clock::{Clock, Timestamp},
    page::Page,
};
use drystone_notification::{
    MIGRATIONS, NotificationStore,
    channel::Channel,
    message::{InboxText, NewDelivery, NewMessage, Recipient, State},
    store::{DeliveryFilter, Outcome},
};
use drystone_store::{Db, Location, PoolConfig, sealing::Sealed, sealing::Stored};
use uuid::Uuid;

/// More executions than PostgreSQL makes custom plans for (five), so that it uses a generic plan where it thinks that cheaper.
const ROUNDS: usize = 8;

const ROWS: &str = "
    INSERT INTO drystone_notification.message
        (id, template, sender, fingerprint, user_id, email, display_name, locale, parameters, key_id, expires_at, created_at)
    SELECT gen_random_uuid(), 'news', 'shop', '', gen_random_uuid(), n || '@crowd.example', '', '', '{}', NULL, n, 1000000::bigint * n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO drystone_notification.delivery
        (id, message_id, user_id, channel, destination, lane, state, attempts, leases, next_attempt_at, last_error, created_at, finished_at)
    SELECT gen_random_uuid(), id, user_id, 1, email, 'mail crowd.example', 2, 1, 0, created_at, '', created_at, created_at
    FROM drystone_notification.message;
    INSERT INTO drystone_notification.inbox_message (user_id, id, template, category, title, body, created_at)
    SELECT user_id, id, 'news', 'product', 'One of many', 'By the river', created_at
    FROM drystone_notification.message;
    INSERT INTO drystone_notification.opt_out (user_id, category, channel)
    SELECT user_id, 'product', 1
    FROM drystone_notification.message;
    ANALYZE";

fn message(user: Uuid, now: Timestamp) -> NewMessage {
    let delivery = |channel| NewDelivery { id: Uuid::now_v7(), channel, destination: "ada@example.com".to_owned() };
    NewMessage {
        id: Uuid::now_v7(),
        template: "news".to_owned(),
        sender: "shop".to_owned(),
        recipient: Recipient { user_id: Some(user), email: Some("ada@example.com".to_owned()), ..Recipient::default() },
        parameters: [].into(),
        has_secrets: true,
        expires_at: now + Duration::from_hours(1),
        deliveries: vec![delivery(Channel::Mail), delivery(Channel::Webhook), delivery(Channel::Inbox)],
        inbox: Some(InboxText { category: "product".to_owned(), title: "News".to_owned(), body: "spring".to_owned() }),
    }
}

#[tokio::test]
async fn every_query_of_messages_uses_an_index() {
    let database = Postgres::shared().await.database().await;
    let location = Location::server("notification", database.as_str())
        .unwrap()
        // Each connection has plans of its own.
        .with_pool(PoolConfig { connections: 1, ..PoolConfig::default() });
    Db::open(location.clone(), MIGRATIONS).await.unwrap().close().await;
    database.run(ROWS).await;
    database.reset_scan_counts().await;

    let db = Db::open(location, MIGRATIONS).await.unwrap();
    let store = NotificationStore::new(db.clone());
    let now = Clock::system().now();
    let sealed = || Stored::Sealed(Sealed { envelope: vec![1], key_id: "test".to_owned() });
    for _ in 0..ROUNDS {
        let (user, lease) = (Uuid::now_v7(), Uuid::now_v7());
        let message = message(user, now);
        for _ in 0..2 {
            store.accept(&message, [0; 32], &sealed(), now).await.unwrap();
        }
        let lease_next = async |channel| {
            assert!(store.has_due(channel, now).await.unwrap());
            store.lease(lease, channel, now, now + Duration::from_mins(1), 64).await.unwrap().remove(0)
        };
        let job = lease_next(Channel::Mail).await;
        store.settle(lease, &job, &Outcome::Delivered, now).await.unwrap();
        let job = lease_next(Channel::Webhook).await;
        store.settle(lease, &job, &Outcome::Dead { error: "never".to_owned() }, now).await.unwrap();
        assert!(store.requeue(job.id, now).await.unwrap());
        let job = lease_next(Channel::Webhook).await;
        store
            .settle(lease, &job, &Outcome::Deferred { next: now + Duration::from_hours(1), error: None }, now)
            .await
            .unwrap();
        store.remove_expired_secrets(now).await.unwrap();
        store.delivery(job.id).await.unwrap().unwrap();
        let page = Page { size: 50, after: None };
        for filter in [
            DeliveryFilter::default(),
            DeliveryFilter { state: Some(State::Queued), user_id: None },
            DeliveryFilter { state: None, user_id: Some(user) },
            DeliveryFilter { state: Some(State::Dead), user_id: Some(user) },
        ] {
            store.deliveries(filter, &page).await.unwrap();
            store.deliveries(filter, &Page { size: 50, after: Some(job.id) }).await.unwrap();
        }
        store.backlog().await.unwrap();
        let sealed_after = store.sealed_after(Uuid::nil(), 100).await.unwrap();
        let new = Sealed { envelope: vec![2], key_id: "test".to_owned() };
        store.replace_parameters(sealed_after[0].0, &sealed_after[0].1, &new).await.unwrap();
        for unread in [true, false] {
            assert_eq!(store.inbox(user, unread, &page).await.unwrap().len(), 1);
        }
        let after = store.inbox_after(user, Uuid::nil()).await.unwrap();
        assert_eq!(store.unread(user).await.unwrap(), 1);
        store.users_with_messages_since(now, 10).await.unwrap();
        store.mark_read(user, Some(&[after[0].id]), now).await.unwrap();
        store.mark_read(user, None, now).await.unwrap();
        for is_enabled in [false, true] {
            store.set_preference(user, "product", Channel::Mail, is_enabled).await.unwrap();
        }
        store.opt_outs(user).await.unwrap();
        store.remove_older(chrono::DateTime::UNIX_EPOCH, chrono::DateTime::UNIX_EPOCH).await.unwrap();
        store.forget(user).await.unwrap();
    }
    db.close().await;
    let scans = database.scans("drystone_notification").await;
    for table in ["message", "delivery", "inbox_message", "opt_out"] {
        assert_eq!(scans[table].sequential, 0, "{table}: {scans:?}");
        assert!(scans[table].index >= i64::try_from(ROUNDS).unwrap(), "{table}: {scans:?}");
    }
}
