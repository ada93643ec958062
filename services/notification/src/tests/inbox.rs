//! Inboxes: reading, watching and preferences.

use std::time::Duration;

use drystone::{
    Reason,
    notification::v1::{
        Channel, Delivery, InboxMessage, ListMessagesRequest, ListPreferencesRequest, MarkReadRequest,
        SetPreferenceRequest, WatchMessagesRequest, inbox_service_server::InboxService,
    },
};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::Status;
use uuid::Uuid;

use super::fixture::{Fixture, ada, by_user, news, on_each_engine, reason, reset};
use crate::{Service, inbox::MAX_MESSAGES};

const TIMEOUT: Duration = Duration::from_secs(20);

async fn messages(fixture: &Fixture, user: &str, unread_only: bool) -> (Vec<InboxMessage>, i32) {
    let request = ListMessagesRequest { unread_only, page_size: 200, ..Default::default() };
    let listed = fixture.service.list_messages(by_user(user, &fixture.clock, request)).await.unwrap().into_inner();
    (listed.messages, listed.unread_count)
}

async fn mark(fixture: &Fixture, user: &str, ids: &[&str], all: bool) -> Result<i32, Status> {
    let request = MarkReadRequest { ids: ids.iter().map(ToString::to_string).collect(), all };
    let marked = fixture.service.mark_read(by_user(user, &fixture.clock, request)).await;
    marked.map(|response| response.into_inner().marked_count)
}

async fn set(fixture: &Fixture, user: &str, category: &str, channel: Channel, enabled: bool) -> Result<(), Status> {
    let request = SetPreferenceRequest { category: category.to_owned(), channel: channel.into(), enabled };
    fixture.service.set_preference(by_user(user, &fixture.clock, request)).await.map(drop)
}

async fn a_user_reads_their_own_messages_alone(fixture: Fixture) {
    let (ada, eve) = (ada(), ada());
    for _ in 0..2 {
        fixture.send("shop", news(ada.clone())).await.unwrap();
        fixture.clock.advance(Duration::from_millis(5));
    }
    let (inbox, unread) = messages(&fixture, &ada.user_id, false).await;
    assert_eq!((inbox.len(), unread), (2, 2));
    assert_eq!((inbox[0].title.as_str(), inbox[0].body.as_str()), ("News", "spring"));
    assert_eq!((inbox[0].category.as_str(), inbox[0].template.as_str()), ("product", "news"));
    assert!(inbox[0].id > inbox[1].id, "newest first");
    assert_eq!(messages(&fixture, &eve.user_id, false).await, (vec![], 0));

    let (first, unknown) = (inbox[0].id.as_str(), Uuid::now_v7().to_string());
    assert_eq!(mark(&fixture, &eve.user_id, &[first], false).await.unwrap(), 0);
    assert_eq!(mark(&fixture, &ada.user_id, &[first, &unknown], false).await.unwrap(), 1);
    assert_eq!(mark(&fixture, &ada.user_id, &[first], false).await.unwrap(), 0, "it stays as it is");
    let (left, unread) = messages(&fixture, &ada.user_id, true).await;
    assert_eq!((left.len(), unread, &left[0].id), (1, 1, &inbox[1].id));
    assert_eq!(mark(&fixture, &ada.user_id, &[], true).await.unwrap(), 1);
    assert_eq!(messages(&fixture, &ada.user_id, true).await, (vec![], 0));
    for (ids, all) in [(vec![], false), (vec![first], true)] {
        assert_eq!(reason(mark(&fixture, &ada.user_id, &ids, all).await), Reason::InvalidRequest);
    }
}

async fn an_inbox_keeps_its_newest_messages(fixture: Fixture) {
    let ada = ada();
    for _ in 0..MAX_MESSAGES + 3 {
        fixture.send("shop", news(ada.clone())).await.unwrap();
        fixture.clock.advance(Duration::from_millis(2));
    }
    let user: Uuid = ada.user_id.parse().unwrap();
    assert_eq!(fixture.store.unread(user).await.unwrap(), i64::from(MAX_MESSAGES));
    let now = fixture.clock.now();
    fixture.store.remove_older(now, now).await.unwrap();
    assert_eq!(fixture.store.unread(user).await.unwrap(), 0, "and none beyond the retention");
    assert!(fixture.deliveries("").await.is_empty());
}

async fn what_a_user_has_switched_off_is_not_sent(fixture: Fixture) {
    let ada = ada();
    let preferences = || async {
        let request = by_user(&ada.user_id, &fixture.clock, ListPreferencesRequest {});
        let listed = fixture.service.list_preferences(request).await.unwrap().into_inner().preferences;
        let shown = |one: drystone::notification::v1::Preference| {
            (one.category.clone(), one.channel(), one.enabled, one.mutable)
        };
        listed.into_iter().map(shown).collect::<Vec<_>>()
    };
    let expected = |mail: bool| {
        [
            ("product".to_owned(), Channel::Mail, mail, true),
            ("product".to_owned(), Channel::Inbox, true, true),
            ("security".to_owned(), Channel::Mail, true, false),
            ("security".to_owned(), Channel::Inbox, true, false),
        ]
    };
    assert_eq!(preferences().await, expected(true));
    for _ in 0..2 {
        set(&fixture, &ada.user_id, "product", Channel::Mail, false).await.unwrap();
    }
    assert_eq!(preferences().await, expected(false));
    let channels = |sent: Vec<Delivery>| sent.iter().map(Delivery::channel).collect::<Vec<_>>();
    assert_eq!(channels(fixture.send("shop", news(ada.clone())).await.unwrap()), [Channel::Inbox]);
    set(&fixture, &ada.user_id, "product", Channel::Inbox, false).await.unwrap();
    assert_eq!(channels(fixture.send("shop", news(ada.clone())).await.unwrap()), []);
    assert_eq!(messages(&fixture, &ada.user_id, false).await.0.len(), 1);
    set(&fixture, &ada.user_id, "product", Channel::Mail, true).await.unwrap();
    assert_eq!(channels(fixture.send("shop", news(ada.clone())).await.unwrap()), [Channel::Mail]);

    // Security stays on, also if the row is there.
    assert_eq!(reason(set(&fixture, &ada.user_id, "security", Channel::Mail, false).await), Reason::InvalidRequest);
    let user = ada.user_id.parse().unwrap();
    fixture.store.set_preference(user, "security", crate::channel::Channel::Mail, false).await.unwrap();
    assert_eq!(channels(fixture.send("auth", reset(ada.clone())).await.unwrap()), [Channel::Mail]);
    assert_eq!(preferences().await[2], expected(true)[2]);
    for (category, channel) in [("unknown", Channel::Mail), ("product", Channel::Webhook)] {
        assert_eq!(reason(set(&fixture, &ada.user_id, category, channel, false).await), Reason::InvalidRequest);
    }
}

type Watch = <Service as InboxService>::WatchMessagesStream;

async fn watch(fixture: &Fixture, user: &str, after_id: &str) -> Result<Watch, Status> {
    let request = WatchMessagesRequest { after_id: after_id.to_owned() };
    let watch = fixture.service.watch_messages(by_user(user, &fixture.clock, request)).await;
    watch.map(tonic::Response::into_inner)
}

/// The messages of the next response; `None` at the end.
async fn next(watch: &mut Watch) -> Option<Vec<InboxMessage>> {
    let response = timeout(TIMEOUT, watch.next()).await.expect("a response in time")?;
    Some(response.unwrap().messages)
}

async fn a_watcher_receives_new_messages_also_of_another_instance(fixture: Fixture) {
    let ada = ada();
    fixture.send("shop", news(ada.clone())).await.unwrap();
    let (old, _) = messages(&fixture, &ada.user_id, false).await;
    fixture.clock.advance(Duration::from_millis(5));
    let mut open = watch(&fixture, &ada.user_id, "").await.unwrap();
    assert_eq!(next(&mut open).await, Some(vec![]), "the first response tells that the stream is open");
    fixture.clock.advance(Duration::from_millis(5));
    fixture.send("shop", news(ada.clone())).await.unwrap();
    let received = next(&mut open).await.unwrap();
    assert_eq!(received.len(), 1);
    assert_ne!(received[0].id, old[0].id);

    // Accepted elsewhere: the instance polls.
    let other = fixture.another(|_| ()).await;
    let follow = tokio::spawn(fixture.service.inboxes().clone().follow());
    fixture.clock.advance(Duration::from_millis(5));
    other.send("shop", news(ada.clone())).await.unwrap();
    let elsewhere = next(&mut open).await.unwrap();
    assert_eq!(elsewhere.len(), 1);

    // From a message on.
    let mut again = watch(&fixture, &ada.user_id, &old[0].id).await.unwrap();
    let ids: Vec<_> = next(&mut again).await.unwrap().into_iter().map(|message| message.id).collect();
    assert_eq!(ids, [received[0].id.as_str(), elsewhere[0].id.as_str()]);

    fixture.stop.cancel();
    assert_eq!(next(&mut open).await, None, "it ends when the service stops");
    follow.await.unwrap();
}

/// Messages of several instances may become visible out of order, and a client may name any id.
async fn a_watcher_misses_nothing_after_any_id(fixture: Fixture) {
    let ada = ada();
    for _ in 0..2 {
        fixture.send("shop", news(ada.clone())).await.unwrap();
        fixture.clock.advance(Duration::from_secs(2));
    }
    let (known, _) = messages(&fixture, &ada.user_id, false).await;
    let mut again = watch(&fixture, &ada.user_id, &known[0].id).await.unwrap();
    assert_eq!(next(&mut again).await.unwrap(), [known[1].clone()], "it may have become visible after the newest");

    let mut future = watch(&fixture, &ada.user_id, "ffffffff-ffff-7fff-bfff-ffffffffffff").await.unwrap();
    assert_eq!(next(&mut future).await.unwrap().len(), 2);
    fixture.send("shop", news(ada.clone())).await.unwrap();
    for watch in [&mut again, &mut future] {
        assert_eq!(next(watch).await.unwrap().len(), 1);
    }
}

async fn the_number_of_watches_is_bounded(fixture: Fixture) {
    let user = ada().user_id;
    let mut watches = Vec::new();
    for _ in 0..16 {
        watches.push(watch(&fixture, &user, "").await.unwrap());
    }
    assert_eq!(reason(watch(&fixture, &user, "").await), Reason::Overloaded);
    drop(watch(&fixture, &ada().user_id, "").await.unwrap());
    let mut last = watches.pop().unwrap();
    assert_eq!(next(&mut last).await, Some(vec![]));
    drop(last);
    drop(watch(&fixture, &user, "").await.unwrap());
}

on_each_engine! {
    a_user_reads_their_own_messages_alone,
    an_inbox_keeps_its_newest_messages,
    what_a_user_has_switched_off_is_not_sent,
    a_watcher_receives_new_messages_also_of_another_instance,
    a_watcher_misses_nothing_after_any_id,
    the_number_of_watches_is_bounded,
}
