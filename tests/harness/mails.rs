//! A mesh that sends its mails to a server of the test, and what users find in them.

use std::time::Duration;

use drystone_backends::{Mail, Smtp, SmtpOptions};

use crate::{Mesh, Setup, wait};

/// A mesh whose mails this server receives.
pub fn setup(smtp: &Smtp) -> Setup {
    Mesh::setup()
        .set("notification.smtp.host", &smtp.address().ip().to_string())
        .set("notification.smtp.port", &smtp.address().port().to_string())
        .set("notification.smtp.tls", "none")
        .set("notification.smtp.from", "Acme <no-reply@acme.example>")
}

/// A mesh with its mail server.
pub fn start() -> (Smtp, Mesh) {
    let smtp = Smtp::start(SmtpOptions::default());
    let mesh = setup(&smtp).start();
    (smtp, mesh)
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
