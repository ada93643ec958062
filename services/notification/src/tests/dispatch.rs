//! Deliveries, with a real mail server.

use std::{collections::BTreeMap, time::Duration};

use drystone::{
    Reason,
    notification::v1::{
        Delivery, DeliveryState, Recipient, RequeueDeliveryRequest, SendRequest,
        notification_service_server::NotificationService,
    },
};
use drystone_backends::{Smtp, SmtpOptions};
use drystone_mesh::time::to_proto;
use uuid::Uuid;

use super::fixture::{Fixture, ada, by_workload, news, on_each_engine, reason, reset};
use crate::{Config, channel::Channel};

/// The longest delay after the first failure.
const FIRST_DELAY: Duration = Duration::from_secs(5);

/// Sends mails through this server.
fn by(smtp: &Smtp) -> impl FnOnce(&mut Config) + use<> {
    let address = smtp.address();
    move |config| {
        config.smtp.host = address.ip().to_string();
        config.smtp.port = address.port();
        config.smtp.tls = crate::SmtpTls::None;
        config.smtp.from = "Acme <no-reply@acme.example>".to_owned();
    }
}

/// An instance that sends mails through a new server.
async fn with_server(fixture: &Fixture) -> (Smtp, Fixture) {
    let smtp = Smtp::start(SmtpOptions::default());
    let instance = fixture.another(by(&smtp)).await;
    (smtp, instance)
}

fn to(address: &str) -> SendRequest {
    reset(Recipient { email: address.to_owned(), ..ada() })
}

/// Accepts a mail to this address.
async fn accept(fixture: &Fixture, address: &str) -> Delivery {
    fixture.send("auth", to(address)).await.unwrap().remove(0)
}

async fn read(fixture: &Fixture, delivery: &Delivery) -> Delivery {
    let id = delivery.id.parse().unwrap();
    fixture.store.delivery(id).await.unwrap().unwrap().into()
}

async fn a_mail_is_delivered_once_with_its_texts(fixture: Fixture) {
    let (smtp, instance) = with_server(&fixture).await;
    let delivery = accept(&instance, "Ada@example.com").await;
    assert_eq!(instance.attempt().await, 1);
    assert_eq!(instance.attempt().await, 0);
    let mails = smtp.mails();
    assert_eq!(mails.len(), 1);
    let mail = &mails[0];
    assert_eq!(
        (mail.mail_from.as_str(), &*mail.rcpt_to),
        ("no-reply@acme.example", &["Ada@example.com".to_owned()][..])
    );
    assert_eq!(mail.header("From"), Some("Acme <no-reply@acme.example>"));
    assert_eq!(mail.header("To"), Some("Ada <Ada@example.com>"));
    assert_eq!(mail.header("Message-ID"), Some(&*format!("<{}@acme.example>", delivery.id)));
    assert_eq!(mail.header("Auto-Submitted"), Some("auto-generated"));
    assert!(mail.subject.as_ref().unwrap().contains("Drystone"));
    for body in [&mail.text, &mail.html] {
        assert!(body.as_ref().unwrap().contains("https://id.example.com/reset?token=s3cret"));
    }
    assert_eq!(mail.defects, [""; 0]);
    assert!(mail.data.lines().all(|line| line.len() <= 998));
    let delivered = read(&fixture, &delivery).await;
    assert_eq!((delivered.state(), delivered.attempts), (DeliveryState::Delivered, 1));
    assert!(delivered.finish_time.is_some() && delivered.next_attempt_time.is_none());
}

async fn a_mail_that_is_refused_for_now_is_sent_later(fixture: Fixture) {
    let (smtp, instance) = with_server(&fixture).await;
    for address in ["greylist-1@example.com", "drop-once-1@example.com"] {
        let delivery = accept(&instance, address).await;
        assert_eq!(instance.attempt().await, 1);
        let failed = read(&fixture, &delivery).await;
        assert_eq!((failed.state(), failed.attempts), (DeliveryState::Queued, 1), "{address}");
        assert!(!failed.last_error.is_empty() && failed.next_attempt_time != failed.create_time);
        assert_eq!(instance.attempt().await, 0, "not before its time");
        instance.clock.advance(FIRST_DELAY);
        assert_eq!(instance.attempt().await, 1);
        let delivered = read(&fixture, &delivery).await;
        assert_eq!((delivered.state(), delivered.attempts, &*delivered.last_error), (DeliveryState::Delivered, 2, ""));
        assert_eq!(smtp.mails_to(address).len(), 1);
    }
}

async fn a_mail_that_is_refused_for_good_is_given_up_and_can_be_requeued(fixture: Fixture) {
    let (smtp, instance) = with_server(&fixture).await;
    let requeue = |id: &str| {
        let request = by_workload("operator", RequeueDeliveryRequest { id: id.to_owned() });
        instance.service.requeue_delivery(request)
    };
    for (address, reply) in [("permanent-1@example.com", "550"), ("reject-data-1@example.com", "554")] {
        let delivery = accept(&instance, address).await;
        assert_eq!(reason(requeue(&delivery.id).await), Reason::DeliveryNotDead, "while it is queued");
        for _ in 0..2 {
            assert_eq!(instance.attempt().await, 1);
            let dead = read(&fixture, &delivery).await;
            assert_eq!((dead.state(), dead.attempts), (DeliveryState::Dead, 1));
            assert!(dead.last_error.contains(reply), "{}", dead.last_error);
            assert!(dead.finish_time.is_some());
            assert_eq!(instance.attempt().await, 0, "it is not attempted again");
            let requeued = requeue(&delivery.id).await.unwrap().into_inner().delivery.unwrap();
            assert_eq!((requeued.state(), requeued.attempts), (DeliveryState::Queued, 0));
        }
        instance.attempt().await;
    }
    assert_eq!(smtp.mails().len(), 0);
    assert_eq!(fixture.deliveries("state = dead").await.len(), 2);
    assert_eq!(fixture.store.backlog().await.unwrap().dead, 2);
    assert_eq!(reason(requeue(&Uuid::now_v7().to_string()).await), Reason::DeliveryNotFound);
}

async fn what_always_fails_is_given_up(fixture: Fixture) {
    let smtp = Smtp::start(SmtpOptions::default());
    let by = by(&smtp);
    let instance = fixture
        .another(|config| {
            by(config);
            config.max_attempts = 3;
        })
        .await;
    let delivery = accept(&instance, "temporary-1@example.com").await;
    for _ in 0..3 {
        assert_eq!(instance.attempt().await, 1);
        instance.clock.advance(FIRST_DELAY * 4);
    }
    let dead = read(&fixture, &delivery).await;
    assert_eq!((dead.state(), dead.attempts), (DeliveryState::Dead, 3));
    assert!(dead.last_error.contains("after 3 attempts") && dead.last_error.contains("451"), "{}", dead.last_error);
}

async fn an_expired_message_is_not_sent(fixture: Fixture) {
    let (smtp, instance) = with_server(&fixture).await;
    let expire_time = Some(to_proto(instance.clock.now() + Duration::from_mins(1)));
    let request = SendRequest { expire_time, ..to("ada@example.com") };
    let sent = instance.send("auth", request).await.unwrap().remove(0);
    let unlimited = accept(&instance, "bob@example.com").await;
    instance.clock.advance(Duration::from_mins(1));
    assert_eq!(instance.attempt().await, 2);
    let dead = read(&fixture, &sent).await;
    assert_eq!(dead.state(), DeliveryState::Dead);
    assert!(dead.last_error.contains("expired"), "{}", dead.last_error);
    assert_eq!(read(&fixture, &unlimited).await.state(), DeliveryState::Delivered);
    assert_eq!(smtp.mails_to("ada@example.com").len(), 0);
    let requeue = by_workload("operator", RequeueDeliveryRequest { id: sent.id });
    assert_eq!(reason(instance.service.requeue_delivery(requeue).await), Reason::DeliveryNotDead);
}

async fn a_mail_server_that_does_not_answer_costs_no_attempts(fixture: Fixture) {
    let (smtp, instance) = with_server(&fixture).await;
    smtp.stop();
    let mut deliveries = Vec::new();
    for number in 0..20 {
        deliveries.push(accept(&instance, &format!("ada{number}@{number}.example")).await);
        instance.attempt().await;
    }
    let mut attempts = 0;
    for delivery in &deliveries {
        attempts += read(&fixture, delivery).await.attempts;
    }
    assert!(attempts <= 6, "the others are put off: {attempts}");
    smtp.restart();
    while fixture.store.backlog().await.unwrap().queued > 0 {
        instance.clock.advance(Duration::from_secs(5));
        instance.attempt().await;
    }
    assert_eq!(smtp.mails().len(), deliveries.len());
}

async fn a_mail_without_a_reply_is_sent_again_with_the_same_id(fixture: Fixture) {
    let (smtp, instance) = with_server(&fixture).await;
    let delivery = accept(&instance, "lost-reply-1@example.com").await;
    instance.attempt().await;
    instance.clock.advance(FIRST_DELAY);
    instance.attempt().await;
    let ids: Vec<_> = smtp.mails().iter().map(|mail| mail.header("Message-ID").unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(read(&fixture, &delivery).await.state(), DeliveryState::Delivered);
}

async fn the_deliveries_of_a_killed_instance_are_made_after_its_lease(fixture: Fixture) {
    let (smtp, instance) = with_server(&fixture).await;
    let delivery = accept(&instance, "ada@example.com").await;
    let now = instance.clock.now();
    let killed = Uuid::now_v7();
    let lease = async |now, until| fixture.store.lease(killed, Channel::Mail, now, until, 10).await.unwrap().len();
    assert_eq!(lease(now, now + crate::dispatch::LEASE).await, 1);
    assert_eq!(instance.attempt().await, 0);
    instance.clock.advance(Duration::from_mins(2));
    assert_eq!(instance.attempt().await, 1);
    assert_eq!(smtp.mails().len(), 1);
    // One whose attempts never end, since they kill the process, is given up.
    let fatal = accept(&instance, "killer@example.com").await;
    let mut time = instance.clock.now();
    for _ in 0..crate::dispatch::MAX_LEASES {
        assert_eq!(lease(time, time + Duration::from_secs(1)).await, 1);
        time += Duration::from_secs(1);
    }
    instance.clock.advance((time - instance.clock.now()).to_std().unwrap());
    instance.attempt().await;
    let given_up = read(&fixture, &fatal).await;
    assert_eq!((given_up.state(), smtp.mails().len()), (DeliveryState::Dead, 1), "{}", given_up.last_error);
    assert_eq!(given_up.attempts, 1);
    assert_eq!(read(&fixture, &delivery).await.state(), DeliveryState::Delivered);
}

async fn an_attempt_that_outlives_its_lease_counts_once(fixture: Fixture) {
    let smtp = Smtp::start(SmtpOptions::default());
    let (first, second) = (fixture.another(by(&smtp)).await, fixture.another(by(&smtp)).await);
    let delivery = accept(&first, "slow-data-1@example.com").await;
    let begun = async |count| {
        while smtp.attempts("slow-data-1@example.com") < count {
            tokio::task::yield_now().await;
        }
    };
    let slow = first.dispatcher().clone();
    let slow = tokio::spawn(async move { slow.run_once().await });
    begun(1).await;
    fixture.clock.advance(Duration::from_mins(2));
    let other = second.dispatcher().clone();
    let other = tokio::spawn(async move { other.run_once().await });
    begun(2).await;
    assert_eq!(slow.await.unwrap(), 1);
    let delivered = read(&fixture, &delivery).await;
    assert_eq!(
        (delivered.state(), delivered.attempts),
        (DeliveryState::Delivered, 1),
        "although another one has the lease"
    );
    assert_eq!(other.await.unwrap(), 1);
    assert_eq!(read(&fixture, &delivery).await, delivered, "the second outcome changes nothing");
    let ids: Vec<_> = smtp.mails().iter().map(|mail| mail.header("Message-ID").unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1], "its receiver can tell that it is the same");
}

async fn a_slow_destination_does_not_hold_up_the_others(fixture: Fixture) {
    let (smtp, instance) = with_server(&fixture).await;
    for number in 0..60 {
        accept(&instance, &format!("slow-{number}@slow.example")).await;
        instance.clock.advance(Duration::from_millis(1));
    }
    let running = tokio::spawn(instance.dispatcher().clone().run());
    smtp.wait_for(1).await;
    accept(&instance, "ok@fast.example").await;
    instance.dispatcher().wake();
    smtp.wait_for_mail("ok@fast.example").await;
    assert!(smtp.mails().len() <= 9, "two of the slow ones at once: {}", smtp.mails().len());
    instance.stop.cancel();
    running.await.unwrap();
    // What had begun is finished, and the rest is queued for others.
    let (delivered, queued) = (smtp.mails().len(), fixture.store.backlog().await.unwrap().queued);
    assert_eq!(i64::try_from(delivered).unwrap() + queued, 61);
    assert_eq!(fixture.deliveries("state = delivered").await.len(), delivered);
    assert!(fixture.store.has_due(Channel::Mail, instance.clock.now() + Duration::from_secs(2)).await.unwrap());
}

async fn several_instances_deliver_each_mail_once(fixture: Fixture) {
    const MAILS: usize = 90;
    let smtp = Smtp::start(SmtpOptions::default());
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(fixture.another(by(&smtp)).await);
    }
    let running: Vec<_> = instances.iter().map(|instance| tokio::spawn(instance.dispatcher().clone().run())).collect();
    for number in 0..MAILS {
        accept(&instances[number % 3], &format!("ok@{number}.example")).await;
    }
    smtp.wait_for(MAILS).await;
    for instance in &instances {
        instance.stop.cancel();
    }
    for running in running {
        running.await.unwrap();
    }
    let mut received: BTreeMap<String, usize> = BTreeMap::new();
    for mail in smtp.mails() {
        *received.entry(mail.rcpt_to[0].clone()).or_default() += 1;
    }
    assert_eq!(received.len(), MAILS);
    assert!(received.values().all(|count| *count == 1), "{received:?}");
    assert_eq!(fixture.deliveries("state = delivered").await.len(), MAILS);
}

async fn a_rate_spreads_the_mails_to_one_domain(fixture: Fixture) {
    let smtp = Smtp::start(SmtpOptions::default());
    let by = by(&smtp);
    let instance = fixture
        .another(|config| {
            by(config);
            config.mails_per_minute = 4;
        })
        .await;
    accept(&instance, "ok@limited.example").await;
    assert_eq!(instance.attempt().await, 1);
    for number in 1..7 {
        accept(&instance, &format!("ok-{number}@limited.example")).await;
    }
    accept(&instance, "ok@other.example").await;
    assert_eq!(instance.attempt().await, 7);
    assert_eq!(smtp.mails().len(), 5, "four, and the one to another domain");
    let queued = fixture.deliveries("state = queued").await;
    assert!(queued.iter().all(|delivery| delivery.attempts == 0));
    let mut times: Vec<_> = queued.iter().map(|delivery| delivery.next_attempt_time.unwrap().seconds).collect();
    times.sort_unstable();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 14), "15 s apart: {times:?}");
}

async fn without_a_mail_server_mails_are_files(fixture: Fixture) {
    fixture.send("shop", news(ada())).await.unwrap();
    assert_eq!(fixture.attempt().await, 1);
    fixture.send("auth", reset(ada())).await.unwrap();
    fixture.send("auth", reset(Recipient { locale: "de".to_owned(), ..ada() })).await.unwrap();
    assert_eq!(fixture.attempt().await, 2);
    let mails = fixture.mails();
    assert_eq!(mails.len(), 3);
    assert!(mails.iter().any(|mail| mail.contains('ä')), "{mails:?}");
    assert!(
        mails.iter().any(|mail| mail.contains("Subject: News: spring") && mail.contains("To: Ada <ada@example.com>"))
    );
    // Readable, also with a long link.
    assert!(
        mails.iter().any(|mail| mail.lines().any(|line| line.trim() == "https://id.example.com/reset?token=s3cret"))
    );
}

on_each_engine! {
    a_mail_is_delivered_once_with_its_texts,
    a_mail_that_is_refused_for_now_is_sent_later,
    a_mail_that_is_refused_for_good_is_given_up_and_can_be_requeued,
    what_always_fails_is_given_up,
    an_expired_message_is_not_sent,
    a_mail_server_that_does_not_answer_costs_no_attempts,
    a_mail_without_a_reply_is_sent_again_with_the_same_id,
    the_deliveries_of_a_killed_instance_are_made_after_its_lease,
    an_attempt_that_outlives_its_lease_counts_once,
    a_slow_destination_does_not_hold_up_the_others,
    several_instances_deliver_each_mail_once,
    a_rate_spreads_the_mails_to_one_domain,
    without_a_mail_server_mails_are_files,
}
