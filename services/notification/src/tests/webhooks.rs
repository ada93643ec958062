//! Deliveries to webhooks.

use std::time::Duration;

use drystone::notification::v1::{Channel, DeliveryState};
use serde_json::{Value, json};

use super::fixture::{Fixture, ada, news, on_each_engine, reset};
use crate::channel::webhook::{
    EndpointConfig,
    tests::receiver::{Certificate, Receiver, Reply},
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn endpoint(name: &str, receiver: &Receiver, certificate: &Certificate) -> EndpointConfig {
    EndpointConfig {
        name: name.to_owned(),
        url: format!("https://127.0.0.1:{}/hooks", receiver.address.port()),
        secrets: vec![SECRET.to_owned().into()],
        ca: certificate.ca.path().to_owned(),
        allow_private: true,
        ..EndpointConfig::default()
    }
}

async fn a_message_is_sent_signed_and_without_secrets_to_those_who_want_its_category(fixture: Fixture) {
    let certificate = Certificate::new("127.0.0.1");
    let (all, security) = (
        Receiver::start(Reply::status("204 No Content"), &certificate).await,
        Receiver::start(Reply::status("200 OK"), &certificate).await,
    );
    let mut only_security = endpoint("only-security", &security, &certificate);
    only_security.categories = vec!["security".to_owned()];
    let webhooks = vec![endpoint("all", &all, &certificate), only_security];
    let instance = fixture.another(|config| config.webhooks = webhooks).await;
    let recipient = ada();
    let sent = instance.send("shop", news(recipient.clone())).await.unwrap();
    let webhook = sent.iter().find(|delivery| delivery.channel() == Channel::Webhook).unwrap();
    assert_eq!(webhook.destination, "all");
    assert_eq!(sent.len(), 3, "mail, inbox, and one of the webhooks");
    instance.attempt().await;

    let requests = all.requests();
    assert_eq!((requests.len(), security.requests().len()), (1, 0));
    assert!(requests[0].is_signed_with(SECRET));
    assert_eq!(requests[0].header("webhook-id"), webhook.id);
    let body: Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(body["type"], "news");
    assert_eq!(body["data"], json!({"word": "spring", "user_id": recipient.user_id}));

    // Mail alone: a link with a token goes nowhere else.
    let sent = instance.send("auth", reset(ada())).await.unwrap();
    assert_eq!(sent.iter().map(drystone::notification::v1::Delivery::channel).collect::<Vec<_>>(), [Channel::Mail]);
}

async fn a_webhook_that_fails_is_called_again_and_one_that_is_gone_is_not(fixture: Fixture) {
    let certificate = Certificate::new("127.0.0.1");
    let receivers = [
        ("busy", Reply::Bytes(b"HTTP/1.1 503 Busy\r\nretry-after: 600\r\ncontent-length: 0\r\n\r\n".to_vec())),
        ("gone", Reply::status("410 Gone")),
        (
            "moved",
            Reply::Bytes(b"HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1/\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ),
    ];
    let mut running = Vec::new();
    for (name, reply) in receivers {
        running.push((name, Receiver::start(reply, &certificate).await));
    }
    let webhooks = running.iter().map(|(name, receiver)| endpoint(name, receiver, &certificate)).collect();
    let instance = fixture.another(|config| config.webhooks = webhooks).await;
    instance.send("shop", news(ada())).await.unwrap();
    instance.attempt().await;
    let deliveries = instance.deliveries("").await;
    let of = |name: &str| deliveries.iter().find(|delivery| delivery.destination == name).unwrap();
    let wait = of("busy").next_attempt_time.unwrap().seconds - instance.clock.now().timestamp();
    assert!((599..=601).contains(&wait), "as the receiver says: {wait}");
    assert_eq!(of("gone").state(), DeliveryState::Dead);
    assert!(of("gone").last_error.contains("410"), "{}", of("gone").last_error);
    assert_eq!(of("moved").state(), DeliveryState::Queued);
    assert!(of("moved").last_error.contains("redirects are not followed"), "{}", of("moved").last_error);
    assert!(running.iter().all(|(_, receiver)| receiver.connections() == 1));

    // Without `allow_private`, an address of this network is refused before there is a connection.
    let mut public = endpoint("moved", &running[2].1, &certificate);
    (public.allow_private, public.url) = (false, public.url.replace("127.0.0.1", "localhost"));
    let instance = fixture.another(|config| config.webhooks = vec![public]).await;
    instance.clock.advance(Duration::from_secs(5));
    instance.attempt().await;
    let deliveries = instance.deliveries("").await;
    let refused = deliveries.iter().find(|delivery| delivery.destination == "moved").unwrap();
    assert!(refused.last_error.contains("allow_private"), "{}", refused.last_error);
    assert_eq!(running[2].1.connections(), 1);
}

on_each_engine! {
    a_message_is_sent_signed_and_without_secrets_to_those_who_want_its_category,
    a_webhook_that_fails_is_called_again_and_one_that_is_gone_is_not,
}
