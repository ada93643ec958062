//! A mesh that sends its mails to a server of the test.

use std::{collections::HashMap, time::Duration};

use drystone::notification::v1::{
    Delivery, Recipient, SendRequest, notification_service_client::NotificationServiceClient,
};
use drystone_backends::{Database, Mail, Postgres, Smtp, SmtpOptions};
use drystone_tests::{Mesh, Setup, services_with_database, wait};
use tonic::{Status, transport::Channel};
use uuid::Uuid;

/// A mesh whose mails this server receives.
pub fn setup(smtp: &Smtp) -> Setup {
    Mesh::setup()
        .set("notification.smtp.host", &smtp.address().ip().to_string())
        .set("notification.smtp.port", &smtp.address().port().to_string())
        .set("notification.smtp.tls", "none")
        .set("notification.smtp.from", "Acme <no-reply@acme.example>")
}

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

pub fn start() -> (Smtp, Mesh) {
    let smtp = Smtp::start(SmtpOptions::default());
    let mesh = setup(&smtp).start();
    (smtp, mesh)
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

/// The tokens of the links to this page that an address was sent, oldest first.
pub fn links(smtp: &Smtp, email: &str, page: &str) -> Vec<String> {
    let link = format!("/{page}#token=");
    let texts = smtp.mails_to(email).into_iter().filter_map(|mail| mail.text);
    let token = |text: String| {
        let (_, token) = text.split_once(&link)?;
        Some(token.split_whitespace().next().unwrap_or_default().to_owned())
    };
    texts.filter_map(token).collect()
}

/// How long a mail may take. On PostgreSQL, one that was leased to a killed process is sent when the lease has ended, after a minute.
const MAIL_TIMEOUT: Duration = Duration::from_mins(3);

/// Waits until an address was sent more than `before` links to this page. Returns the token of the last one.
pub async fn wait_for_link(smtp: &Smtp, email: &str, page: &str, before: usize) -> String {
    wait::until_within(MAIL_TIMEOUT, "a mail with a link", async || {
        links(smtp, email, page).get(before..)?.last().cloned()
    })
    .await
}

/// Waits until an address was sent a mail whose subject has this word.
pub async fn wait_for_subject(smtp: &Smtp, email: &str, word: &str) -> Mail {
    let has_word = |mail: &Mail| mail.subject.as_ref().is_some_and(|subject| subject.contains(word));
    wait::until_within(MAIL_TIMEOUT, "a mail", async || smtp.mails_to(email).into_iter().find(has_word)).await
}
