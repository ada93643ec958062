//! Accepting messages.

use std::time::Duration;

use drystone::{
    Reason,
    notification::v1::{
        Channel, DeliveryState, ForgetRecipientRequest, GetDeliveryRequest, ListDeliveriesRequest, ListMessagesRequest,
        Recipient, RewrapParametersRequest, SendRequest, inbox_service_server::InboxService,
        notification_service_server::NotificationService,
    },
};
use drystone_store::run;
use uuid::Uuid;

use super::fixture::{Fixture, ada, by_user, by_workload, news, on_each_engine, reason, reset};

async fn a_message_has_a_delivery_for_each_channel(fixture: Fixture) {
    let recipient = ada();
    let sent = fixture.send("shop", news(recipient.clone())).await.unwrap();
    let shown: Vec<_> =
        sent.iter().map(|delivery| (delivery.channel(), delivery.state(), &*delivery.destination)).collect();
    let expected = [
        (Channel::Mail, DeliveryState::Queued, "ada@example.com"),
        (Channel::Inbox, DeliveryState::Delivered, recipient.user_id.as_str()),
    ];
    assert_eq!(shown, expected);
    let read = fixture.service.get_delivery(by_workload("operator", GetDeliveryRequest { id: sent[0].id.clone() }));
    assert_eq!(read.await.unwrap().into_inner(), sent[0]);
    let unknown = GetDeliveryRequest { id: Uuid::now_v7().to_string() };
    let unknown = fixture.service.get_delivery(by_workload("operator", unknown)).await;
    assert_eq!(reason(unknown), Reason::DeliveryNotFound);
}

async fn a_repeated_message_changes_nothing_and_another_one_is_refused(fixture: Fixture) {
    let request = news(ada());
    let sent = fixture.send("shop", request.clone()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(fixture.send("shop", request.clone()).await.unwrap(), sent);
    }
    assert_eq!(fixture.deliveries("").await.len(), 2);
    assert_eq!(fixture.attempt().await, 1);
    let delivered = fixture.send("shop", request.clone()).await.unwrap();
    assert_eq!(delivered[0].state(), DeliveryState::Delivered, "with what has become of it");
    assert_eq!(fixture.attempt().await, 0);

    let others = [
        SendRequest { parameters: [("word".to_owned(), "autumn".to_owned())].into(), ..request.clone() },
        SendRequest { recipient: Some(ada()), ..request.clone() },
        SendRequest { expire_time: Some(prost_types::Timestamp::default()), ..request.clone() },
    ];
    for other in others {
        assert_eq!(reason(fixture.send("shop", other).await), Reason::RequestIdReused);
    }
}

async fn concurrent_repetitions_are_one_message(fixture: Fixture) {
    let request = news(ada());
    let sends = (0..8).map(|_| fixture.send("shop", request.clone()));
    let sent = futures_util::future::join_all(sends).await;
    let first = sent[0].as_ref().unwrap();
    assert!(sent.iter().all(|other| other.as_ref().unwrap() == first));
    assert_eq!(fixture.deliveries("").await.len(), 2);
}

async fn only_the_senders_of_a_template_send_it(fixture: Fixture) {
    assert_eq!(reason(fixture.send("orders", news(ada())).await), Reason::CallerNotAllowed);
    assert_eq!(reason(fixture.send("shop", reset(ada())).await), Reason::CallerNotAllowed);
    fixture.send("auth", reset(ada())).await.unwrap();
    let unknown = SendRequest { template: "unknown".to_owned(), ..news(ada()) };
    assert_eq!(reason(fixture.send("shop", unknown).await), Reason::TemplateNotFound);
}

async fn a_wrong_message_is_refused_with_its_field(fixture: Fixture) {
    let parameters = |parameters: &[(&str, &str)]| SendRequest {
        parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..news(ada())
    };
    let recipient = |change: fn(&mut Recipient)| {
        let mut recipient = ada();
        change(&mut recipient);
        news(recipient)
    };
    let injected = "ada@example.com\r\nBcc: eve@example.com";
    let wrong = [
        (parameters(&[]), "word"),
        (parameters(&[("word", "a"), ("other", "b")]), "other"),
        (parameters(&[("word", injected)]), "word"),
        (parameters(&[("word", &"a".repeat(300))]), "word"),
        (recipient(|recipient| recipient.email.clear()), "recipient.email"),
        (recipient(|recipient| recipient.email = "ada@example.com\r\nBcc: eve@example.com".into()), "recipient.email"),
        (recipient(|recipient| recipient.user_id.clear()), "recipient.user_id"),
        (recipient(|recipient| recipient.display_name = "Ada\r\nBcc: eve".into()), "recipient.display_name"),
    ];
    for (request, field) in wrong {
        let status = fixture.send("shop", request).await.unwrap_err();
        assert!(status.message().contains(field), "{field}: {}", status.message());
        assert_eq!(reason::<()>(Err(status)), Reason::InvalidRequest);
    }
    assert!(fixture.deliveries("").await.is_empty());
}

async fn secret_parameters_are_encrypted_and_removed_after_the_delivery(fixture: Fixture) {
    fixture.send("auth", reset(ada())).await.unwrap();
    fixture.send("shop", news(ada())).await.unwrap();
    let stored = || async {
        let rows: Vec<Option<Vec<u8>>> = run!(fixture.store.db().reader(), |db| {
            sqlx::query_scalar("SELECT parameters FROM message ORDER BY template").fetch_all(db).await.unwrap()
        });
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        rows.into_iter().map(|parameters| parameters.map(text)).collect::<Vec<_>>()
    };
    let before = stored().await;
    assert_eq!(before[0].as_deref(), Some(r#"{"word":"spring"}"#));
    assert!(!before[1].as_ref().unwrap().contains("s3cret"));
    let rewrapped = fixture.service.rewrap_parameters(by_workload("operator", RewrapParametersRequest {})).await;
    let rewrapped = rewrapped.unwrap().into_inner();
    assert_eq!((rewrapped.rewrapped, rewrapped.master_key_id.as_str()), (1, "test"));
    assert_ne!(stored().await[1], before[1]);
    assert_eq!(fixture.attempt().await, 2);
    assert!(fixture.mails().iter().any(|mail| mail.contains("s3cret")));
    let after = stored().await;
    assert_eq!((after[0].is_some(), after[1].is_some()), (true, false));
}

async fn a_damaged_envelope_stops_no_other_and_all_are_removed_when_they_expire(fixture: Fixture) {
    for _ in 0..2 {
        fixture.send("auth", reset(ada())).await.unwrap();
        fixture.clock.advance(Duration::from_millis(5));
    }
    let stored = async || -> Vec<Option<Vec<u8>>> {
        run!(fixture.store.db().reader(), |db| {
            sqlx::query_scalar("SELECT parameters FROM message ORDER BY id").fetch_all(db).await.unwrap()
        })
    };
    let before = stored().await;
    let first = fixture.store.sealed_after(Uuid::nil(), 1).await.unwrap().remove(0);
    let damaged = drystone_store::sealing::Sealed { envelope: vec![1], key_id: "test".to_owned() };
    assert!(fixture.store.replace_parameters(first.0, &first.1, &damaged).await.unwrap());
    assert!(!fixture.store.replace_parameters(first.0, &first.1, &damaged).await.unwrap(), "it was another one");
    let rewrapped = fixture.service.rewrap_parameters(by_workload("operator", RewrapParametersRequest {})).await;
    assert!(rewrapped.is_err(), "the operator keeps the old key");
    assert_ne!(stored().await[1], before[1], "the other one was rewrapped");

    fixture.clock.advance(Duration::from_hours(24 * 365));
    fixture.store.remove_expired_secrets(fixture.clock.now()).await.unwrap();
    assert_eq!(stored().await, [None, None]);
}

async fn deliveries_are_listed_in_pages_and_by_filter(fixture: Fixture) {
    let bob = ada();
    for _ in 0..3 {
        fixture.send("shop", news(ada())).await.unwrap();
        fixture.clock.advance(Duration::from_millis(5));
    }
    fixture.send("shop", news(bob.clone())).await.unwrap();
    assert_eq!(fixture.deliveries("state = queued").await.len(), 4);
    assert_eq!(fixture.deliveries(&format!("user_id = \"{}\"", bob.user_id)).await.len(), 2);
    let both = fixture.deliveries(&format!("user_id = \"{}\" AND state = delivered", bob.user_id)).await;
    assert_eq!(both.len(), 1);
    assert!(fixture.deliveries("state = dead").await.is_empty());

    let list = |page_token: String, filter: &str| {
        let request = ListDeliveriesRequest { page_size: 3, page_token, filter: filter.to_owned() };
        fixture.service.list_deliveries(by_workload("operator", request))
    };
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let page = list(token, "").await.unwrap().into_inner();
        ids.extend(page.deliveries.into_iter().map(|delivery| delivery.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(ids.len(), 8);
    assert!(ids.windows(2).all(|pair| pair[0] > pair[1]), "newest first, each once");

    let token = list(String::new(), "").await.unwrap().into_inner().next_page_token;
    assert_eq!(reason(list(token, "state = queued").await), Reason::InvalidPageToken);
    for filter in ["state = unknown", "channel = mail", "user_id = \"ada\"", "state"] {
        assert_eq!(reason(list(String::new(), filter).await), Reason::InvalidRequest, "{filter}");
    }
}

async fn a_forgotten_user_leaves_nothing(fixture: Fixture) {
    let (gone, other) = (ada(), ada());
    for recipient in [&gone, &other] {
        fixture.send("shop", news(recipient.clone())).await.unwrap();
    }
    let request = ForgetRecipientRequest { user_id: gone.user_id.clone() };
    for _ in 0..2 {
        fixture.service.forget_recipient(by_workload("user", request.clone())).await.unwrap();
    }
    let left = fixture.deliveries("").await;
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|delivery| delivery.user_id == other.user_id));
    let inbox = by_user(&gone.user_id, &fixture.clock, ListMessagesRequest::default());
    assert!(fixture.service.list_messages(inbox).await.unwrap().into_inner().messages.is_empty());
}

on_each_engine! {
    a_message_has_a_delivery_for_each_channel,
    a_repeated_message_changes_nothing_and_another_one_is_refused,
    concurrent_repetitions_are_one_message,
    only_the_senders_of_a_template_send_it,
    a_wrong_message_is_refused_with_its_field,
    secret_parameters_are_encrypted_and_removed_after_the_delivery,
    a_damaged_envelope_stops_no_other_and_all_are_removed_when_they_expire,
    deliveries_are_listed_in_pages_and_by_filter,
    a_forgotten_user_leaves_nothing,
}
