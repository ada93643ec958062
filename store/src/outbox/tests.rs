//! The outbox on both engines.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use drystone_backends::Postgres;
use drystone_mesh::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Db, Location};

const MIGRATIONS: &[Migration] = &[migration(1)];

struct Fixture {
    db: Db,
    clock: Clock,
    _database: Box<dyn Any>,
}

impl Fixture {
    async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(&directory.path().join("test.db"), MIGRATIONS).await.unwrap();
        Self { db, clock: Clock::manual(Clock::system().now()), _database: Box::new(directory) }
    }

    async fn postgres() -> Self {
        let database = Postgres::shared().await.database().await;
        let db = Db::open(Location::server("test", database.as_str()).unwrap(), MIGRATIONS).await.unwrap();
        Self { db, clock: Clock::manual(Clock::system().now()), _database: Box::new(database) }
    }

    fn message(&self, key: &str, number: u8) -> Message {
        let id = Uuid::now_v7();
        Message { id, kind: "test".into(), key: key.into(), payload: vec![number], created_at: self.clock.now() }
    }

    async fn put(&self, key: &str, number: u8) -> Uuid {
        let message = self.message(key, number);
        let mut transaction = self.db.begin().await.unwrap();
        put(&mut transaction, &message).await.unwrap();
        transaction.commit().await.unwrap();
        message.id
    }

    fn relay(&self, receiver: &Receiver) -> Relay {
        Relay::new(self.db.clone(), self.clock.clone(), RelayMetrics::default(), receiver.clone())
    }

    async fn backlog(&self) -> (i64, i64) {
        let backlog = store::backlog(&self.db).await.unwrap();
        (backlog.live, backlog.dead)
    }
}

/// Remembers what it was given, and fails as it is told.
#[derive(Clone, Default)]
struct Receiver(std::sync::Arc<ReceiverState>);

#[derive(Default)]
struct ReceiverState {
    delivered: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Messages with this number fail: `Some(true)` for ever.
    failing: Mutex<BTreeMap<u8, bool>>,
    calls: AtomicUsize,
    /// Each so-manieth call fails.
    fails_each: AtomicUsize,
}

impl Receiver {
    fn fail(&self, number: u8, is_permanent: bool) {
        self.0.failing.lock().unwrap().insert(number, is_permanent);
    }

    fn recover(&self) {
        self.0.failing.lock().unwrap().clear();
    }

    fn delivered(&self, key: &str) -> Vec<u8> {
        self.0.delivered.lock().unwrap().get(key).cloned().unwrap_or_default()
    }
}

#[async_trait::async_trait]
impl Deliver for Receiver {
    async fn deliver(&self, message: &Message) -> Result<(), DeliveryError> {
        let number = message.payload[0];
        let calls = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let each = self.0.fails_each.load(Ordering::SeqCst);
        if each > 0 && calls.is_multiple_of(each) {
            return Err(DeliveryError::Temporary("it fails now and then".into()));
        }
        match self.0.failing.lock().unwrap().get(&number) {
            Some(true) => return Err(DeliveryError::Permanent("never".into())),
            Some(false) => return Err(DeliveryError::Temporary("not now".into())),
            None => {}
        }
        self.0.delivered.lock().unwrap().entry(message.key.clone()).or_default().push(number);
        Ok(())
    }
}

async fn messages_are_delivered_in_order_for_each_key(fixture: Fixture) {
    let receiver = Receiver::default();
    let relay = fixture.relay(&receiver);
    for number in 0..3 {
        fixture.put("a", number).await;
        fixture.put("b", number).await;
    }
    // The first of each key, and so on.
    for round in 1..=3 {
        assert_eq!(relay.round().await.unwrap(), 2);
        assert_eq!((receiver.delivered("a").len(), receiver.delivered("b").len()), (round, round));
    }
    assert_eq!(relay.round().await.unwrap(), 0);
    assert_eq!((receiver.delivered("a"), receiver.delivered("b")), (vec![0, 1, 2], vec![0, 1, 2]));
    assert_eq!(fixture.backlog().await, (0, 0));
}

async fn a_transaction_that_is_rolled_back_sends_nothing(fixture: Fixture) {
    let mut transaction = fixture.db.begin().await.unwrap();
    put(&mut transaction, &fixture.message("a", 1)).await.unwrap();
    drop(transaction);
    assert_eq!(fixture.relay(&Receiver::default()).round().await.unwrap(), 0);
    assert_eq!(fixture.backlog().await, (0, 0));
}

async fn a_failure_holds_up_its_key_alone(fixture: Fixture) {
    let receiver = Receiver::default();
    let relay = fixture.relay(&receiver);
    receiver.fail(1, false);
    for (key, number) in [("a", 1), ("a", 2), ("b", 3)] {
        fixture.put(key, number).await;
    }
    for _ in 0..10 {
        relay.round().await.unwrap();
        fixture.clock.advance(Duration::from_secs(400));
    }
    assert_eq!((receiver.delivered("a"), receiver.delivered("b")), (vec![], vec![3]));
    receiver.recover();
    for _ in 0..2 {
        relay.round().await.unwrap();
    }
    assert_eq!(receiver.delivered("a"), [1, 2]);
}

async fn a_failed_message_waits_before_the_next_attempt(fixture: Fixture) {
    let receiver = Receiver::default();
    let relay = fixture.relay(&receiver);
    receiver.fail(1, false);
    fixture.put("a", 1).await;
    assert_eq!(relay.round().await.unwrap(), 1);
    receiver.recover();
    assert_eq!(relay.round().await.unwrap(), 0);
    fixture.clock.advance(Duration::from_millis(250));
    assert_eq!(relay.round().await.unwrap(), 1);
    assert_eq!(receiver.delivered("a"), [1]);
}

async fn a_later_message_of_the_key_ends_the_wait(fixture: Fixture) {
    let receiver = Receiver::default();
    let relay = fixture.relay(&receiver);
    receiver.fail(1, false);
    fixture.put("a", 1).await;
    relay.round().await.unwrap();
    receiver.recover();
    assert_eq!(relay.round().await.unwrap(), 0);
    fixture.put("b", 2).await;
    assert_eq!(relay.round().await.unwrap(), 1, "another key changes nothing");
    fixture.put("a", 3).await;
    relay.round().await.unwrap();
    relay.round().await.unwrap();
    assert_eq!((receiver.delivered("a"), receiver.delivered("b")), (vec![1, 3], vec![2]));
}

async fn a_dead_letter_keeps_its_error_and_lets_later_ones_pass(fixture: Fixture) {
    let receiver = Receiver::default();
    let relay = fixture.relay(&receiver);
    receiver.fail(1, true);
    let dead = fixture.put("a", 1).await;
    fixture.put("a", 2).await;
    relay.round().await.unwrap();
    relay.round().await.unwrap();
    assert_eq!((receiver.delivered("a"), fixture.backlog().await), (vec![2], (0, 1)));
    let error: String = run!(fixture.db.reader(), |db| {
        sqlx::query_scalar("SELECT last_error FROM outbox WHERE id = $1").bind(dead).fetch_one(db).await.unwrap()
    });
    assert_eq!(error, "never");
    assert_eq!(relay.outcome(dead, Duration::from_secs(5)).await.unwrap(), Outcome::GivenUp);
    // It stays so, whatever happens.
    receiver.recover();
    fixture.clock.advance(Duration::from_hours(24));
    assert_eq!(relay.round().await.unwrap(), 0);
}

async fn what_fails_for_a_day_is_given_up(fixture: Fixture) {
    let receiver = Receiver::default();
    let relay = fixture.relay(&receiver);
    receiver.fail(1, false);
    fixture.put("a", 1).await;
    let start = fixture.clock.now();
    while fixture.backlog().await == (1, 0) {
        relay.round().await.unwrap();
        fixture.clock.advance(Duration::from_mins(5));
    }
    assert_eq!(fixture.backlog().await, (0, 1));
    assert!(fixture.clock.now() - start > TimeDelta::hours(12));
}

async fn the_messages_of_a_killed_instance_are_delivered_after_its_lease(fixture: Fixture) {
    let receiver = Receiver::default();
    let relay = fixture.relay(&receiver);
    fixture.put("a", 1).await;
    let now = fixture.clock.now();
    let until = now + TimeDelta::seconds(30);
    let killed = Uuid::now_v7();
    assert_eq!(store::lease(&fixture.db, killed, now, until, 10).await.unwrap().len(), 1);
    assert_eq!(relay.round().await.unwrap(), 0);
    fixture.clock.advance(Duration::from_secs(30));
    assert_eq!(relay.round().await.unwrap(), 1);
    assert_eq!(receiver.delivered("a"), [1]);
    // One that was only slow changes nothing any more.
    fixture.put("a", 2).await;
    let leased = store::lease(&fixture.db, Uuid::now_v7(), fixture.clock.now(), until, 10).await.unwrap();
    store::delivered(&fixture.db, killed, leased[0].sequence).await.unwrap();
    store::failed(&fixture.db, killed, leased[0].sequence, "late", Err(now)).await.unwrap();
    assert_eq!(fixture.backlog().await, (1, 0));
}

async fn several_instances_deliver_everything_in_order(fixture: Fixture) {
    const KEYS: u8 = 8;
    const MESSAGES: u8 = 25;
    let receiver = Receiver::default();
    receiver.0.fails_each.store(7, Ordering::SeqCst);
    let fixture = Fixture { clock: Clock::system(), ..fixture };
    let stop = CancellationToken::new();
    let relays: Vec<Relay> = (0..3).map(|_| fixture.relay(&receiver)).collect();
    let running: Vec<_> = relays.iter().map(|relay| tokio::spawn(relay.clone().run(stop.clone()))).collect();
    let mut ids = Vec::new();
    for number in 0..MESSAGES {
        for key in 0..KEYS {
            ids.push(fixture.put(&key.to_string(), number).await);
        }
        relays[usize::from(number) % relays.len()].wake();
    }
    for id in ids {
        assert_eq!(relays[0].outcome(id, Duration::from_mins(1)).await.unwrap(), Outcome::Delivered);
    }
    stop.cancel();
    for running in running {
        running.await.unwrap();
    }
    for key in 0..KEYS {
        let mut delivered = receiver.delivered(&key.to_string());
        assert!(delivered.is_sorted(), "{key}: {delivered:?}");
        delivered.dedup();
        assert_eq!(delivered, (0..MESSAGES).collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(fixture.backlog().await, (0, 0));
}

async fn a_message_that_is_not_delivered_in_time_is_reported(fixture: Fixture) {
    let receiver = Receiver::default();
    let relay = fixture.relay(&receiver);
    receiver.fail(1, false);
    let id = fixture.put("a", 1).await;
    assert_eq!(relay.outcome(id, Duration::from_millis(50)).await.unwrap(), Outcome::Pending);
    receiver.recover();
    fixture.clock.advance(Duration::from_secs(1));
    relay.round().await.unwrap();
    assert_eq!(relay.outcome(id, Duration::from_secs(5)).await.unwrap(), Outcome::Delivered);
}

macro_rules! on_both_engines {
    ($($name:ident,)+) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Fixture::sqlite().await).await;
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Fixture::postgres().await).await;
            })+
        }
    };
}

on_both_engines! {
    messages_are_delivered_in_order_for_each_key,
    a_transaction_that_is_rolled_back_sends_nothing,
    a_failure_holds_up_its_key_alone,
    a_failed_message_waits_before_the_next_attempt,
    a_later_message_of_the_key_ends_the_wait,
    a_dead_letter_keeps_its_error_and_lets_later_ones_pass,
    what_fails_for_a_day_is_given_up,
    the_messages_of_a_killed_instance_are_delivered_after_its_lease,
    several_instances_deliver_everything_in_order,
    a_message_that_is_not_delivered_in_time_is_reported,
}
