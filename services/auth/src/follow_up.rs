//! What follows from a request or a change here and is done elsewhere: by messages in the outbox, so that neither happens without the
//! other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use drystone::notification::v1::{Recipient, SendRequest};
use drystone_mesh::{
    call::{Call, Client},
    clock::{Clock, Timestamp},
    email::Email,
    error::Reason,
    id,
    text::is_default_ignorable,
    time::to_proto,
};
use drystone_store::outbox::{Deliver, DeliveryError, Message};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    error::Error,
    link::{LINK_INTERVAL, Link, MAX_LINKS, PASSWORD_RESET_LIFETIME},
    store::AuthStore,
    token::{key_ring::KeyRing, link_token::Purpose},
    upstreams::{Contact, Upstreams},
};

/// The timeout of a delivery.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The longest device and address that templates accept, in bytes.
const MAX_DEVICE: usize = 200;
const MAX_ADDRESS: usize = 64;

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum FollowUp {
    /// Somebody has asked for a link to choose a new password for this address, which may have no account.
    SendPasswordReset { email: String },
    /// The sessions of the user end, except for the one that has changed the password.
    EndSessions { user_id: Uuid, except: Option<Uuid> },
    /// The user is told that their password was changed.
    TellPasswordChanged { user_id: Uuid, client: Origin },
    /// The user is told that a session has ended, since somebody has used one of its refresh tokens again.
    TellTokenReused { user_id: Uuid, client: Origin },
}

/// From where something was done, for the mail about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    at: Timestamp,
    device: String,
    address: String,
}

impl Origin {
    /// The client of a call.
    pub(crate) fn of(client: &Client, at: Timestamp) -> Self {
        Self { at, device: shown(&client.agent, MAX_DEVICE), address: shown(&client.address, MAX_ADDRESS) }
    }
}

/// A text of the client, as templates accept it. The caller chooses it, so links in it are made unusable.
fn shown(text: &str, max: usize) -> String {
    let mut visible = String::new();
    for c in text.chars().filter(|c| !is_hidden(*c)) {
        if c.is_alphabetic() && visible.ends_with('.') || c == '/' && visible.ends_with(['/', ':']) {
            visible.push(' ');
        }
        visible.push(c);
    }
    let end = visible.char_indices().map(|(start, c)| start + c.len_utf8()).take_while(|end| *end <= max).last();
    match visible[..end.unwrap_or(0)].trim() {
        "" => "unknown".to_owned(),
        shown => shown.to_owned(),
    }
}

/// Invisible characters, and those that could change how the rest of a mail reads.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || is_default_ignorable(c)
}

impl FollowUp {
    /// As a message of the outbox. Those of one key are delivered in order.
    pub(crate) fn message(&self, now: Timestamp) -> Result<Message, Error> {
        let key = match self {
            Self::SendPasswordReset { email } => format!("reset {email}"),
            Self::EndSessions { user_id, .. } => format!("sessions {user_id}"),
            Self::TellPasswordChanged { user_id, .. } | Self::TellTokenReused { user_id, .. } => {
                format!("mail {user_id}")
            }
        };
        let payload = serde_json::to_vec(self).map_err(Error::FollowUp)?;
        Ok(Message { id: id::v7_at(now), kind: "follow_up".to_owned(), key, payload, created_at: now })
    }
}

/// Delivers the messages.
pub(crate) struct FollowUps {
    pub(crate) upstreams: Arc<dyn Upstreams>,
    pub(crate) store: AuthStore,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) clock: Clock,
    /// Where links lead to.
    pub(crate) app_url: String,
}

#[async_trait]
impl Deliver for FollowUps {
    async fn deliver(&self, message: &Message) -> Result<(), DeliveryError> {
        // An instance of a later release may deliver it.
        let follow_up: FollowUp = serde_json::from_slice(&message.payload)
            .map_err(|error| DeliveryError::Temporary(format!("this release does not know the message: {error}")))?;
        let call = Call::background(Some(Instant::now() + TIMEOUT));
        let done = match follow_up {
            FollowUp::SendPasswordReset { email } => self.send_password_reset(&call, message, &email).await,
            FollowUp::EndSessions { user_id, except } => self.upstreams.end_sessions(&call, user_id, except).await,
            FollowUp::TellPasswordChanged { user_id, client } => {
                self.tell(&call, message, "password_changed", user_id, client).await
            }
            FollowUp::TellTokenReused { user_id, client } => {
                self.tell(&call, message, "session_ended_reuse", user_id, client).await
            }
        };
        done.map_err(|error| DeliveryError::Temporary(error.to_string()))
    }
}

impl FollowUps {
    async fn send_password_reset(&self, call: &Call, message: &Message, email: &str) -> Result<(), Error> {
        let Ok(email) = Email::parse(email) else { return Ok(()) };
        let Some(contact) = self.upstreams.contact_by_email(call, &email).await? else { return Ok(()) };
        if !contact.is_active {
            return Ok(());
        }
        let purpose = Purpose::PasswordReset;
        let now = self.clock.now();
        let link = Link {
            id: message.id,
            purpose,
            user_id: contact.user_id,
            created_at: now,
            expires_at: now + PASSWORD_RESET_LIFETIME,
        };
        let Some(link) = self.store.insert_link(&link, MAX_LINKS, now - LINK_INTERVAL).await? else {
            tracing::info!(user_id = %contact.user_id, "no further link to choose a new password is sent within an hour");
            return Ok(());
        };
        let token = self.keys.current().link_tokens.encode(link.id, purpose, link.created_at);
        // In the fragment, which browsers send to no server.
        let url = format!("{}/reset-password#token={token}", self.app_url.trim_end_matches('/'));
        let minutes = (PASSWORD_RESET_LIFETIME.as_secs() / 60).to_string();
        let parameters = [("link", url), ("minutes", minutes)];
        self.send(call, message, "password_reset", contact, parameters, Some(link.expires_at)).await
    }

    async fn tell(
        &self,
        call: &Call,
        message: &Message,
        template: &str,
        user_id: Uuid,
        client: Origin,
    ) -> Result<(), Error> {
        let Some(contact) = self.upstreams.contact_by_id(call, user_id).await? else { return Ok(()) };
        let time = client.at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let parameters = [("time", time), ("device", client.device), ("address", client.address)];
        self.send(call, message, template, contact, parameters, None).await
    }

    async fn send<const N: usize>(
        &self,
        call: &Call,
        message: &Message,
        template: &str,
        contact: Contact,
        parameters: [(&str, String); N],
        expires_at: Option<Timestamp>,
    ) -> Result<(), Error> {
        let request = SendRequest {
            message_id: message.id.to_string(),
            template: template.to_owned(),
            parameters: parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            recipient: Some(Recipient {
                user_id: contact.user_id.to_string(),
                email: contact.email,
                display_name: contact.display_name,
                locale: contact.locale,
            }),
            expire_time: expires_at.map(to_proto),
        };
        match self.upstreams.send_message(call, request).await {
            // It was accepted before, in other words: the user has changed their name or language, or the secret was replaced.
            Err(Error::Upstream(error)) if error.reason() == Reason::RequestIdReused => Ok(()),
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_clients_are_made_safe_for_mails() {
        assert_eq!(shown("Firefox", 200), "Firefox");
        assert_eq!(shown("", 200), "unknown");
        assert_eq!(shown(" \u{202e}\r\n\u{2028}", 200), "unknown");
        assert_eq!(shown("a\r\nBcc: b", 200), "aBcc: b");
        let link = "see https://evil.example or //evil.example";
        assert_eq!(shown(link, 200), "see https: / /evil. example or / /evil. example");
        assert_eq!(shown("curl/8.5.0 (X11; Linux) Gecko/20100101", 200), "curl/8.5.0 (X11; Linux) Gecko/20100101");
        assert_eq!(shown(&"ä".repeat(200), 201), "ä".repeat(100));
    }
}
