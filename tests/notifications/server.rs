//! What a mesh of these tests stores its data in, and messages to send.

use std::collections::HashMap;

use drystone::notification::v1::{
    Delivery, Recipient, SendRequest, notification_service_client::NotificationServiceClient,
};
use drystone_backends::{Database, Postgres};
pub use drystone_tests::mails::{links, setup, start, wait_for_link, wait_for_subject};
use drystone_tests::{Setup, services_with_database};
use tonic::{Status, transport::Channel};
use uuid::Uuid;

/// What a mesh stores its data in.
pub enum Engine {
    /// Files in its directory.
    Sqlite,
    /// A database, which goes on when the mesh is killed.
    Postgres(Database),
}

impl Engine {
    /// A new database.
    pub async fn postgres() -> Self {
        Self::Postgres(Postgres::shared().await.database().await)
    }

    /// A mesh that starts again with what it has stored.
    pub fn restartable(&self, setup: Setup) -> Setup {
        let setup = setup.set("issuer", "https://id.example.com");
        let Self::Postgres(database) = self else { return setup };
        let set = |setup: Setup, name| setup.set(&format!("{name}.database.url"), database.as_str());
        services_with_database().into_iter().fold(setup, set)
    }
}

pub fn recipient(user_id: &str, email: &str) -> Recipient {
    Recipient {
        user_id: user_id.to_owned(),
        email: email.to_owned(),
        display_name: "Ada".to_owned(),
        locale: "de-CH".to_owned(),
    }
}

/// A message of auth that goes to mail and inbox.
pub fn password_changed(recipient: Recipient) -> SendRequest {
    let parameters = [("time", "2026-01-31T12:00:00Z"), ("device", "Firefox"), ("address", "203.0.113.7")];
    SendRequest {
        message_id: Uuid::now_v7().to_string(),
        template: "password_changed".to_owned(),
        parameters: parameters
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<HashMap<_, _>>(),
        recipient: Some(recipient),
        expire_time: None,
    }
}

/// Sends a message over a channel of its sender.
pub async fn send(channel: Channel, request: SendRequest) -> Result<Vec<Delivery>, Status> {
    let sent = NotificationServiceClient::new(channel).send(request).await;
    sent.map(|response| response.into_inner().deliveries)
}
