//! What follows from a request or a change here and is done elsewhere: by messages in the outbox, so that neither happens without the
//! other.
//!
//! | file | content |
//! |---|---|
//! | `follow_up.rs` | the kinds of message, and how each is delivered |
//! | `follow_up/account.rs` | those that create accounts and set their addresses |
//! | `follow_up/mail.rs`, `follow_up/origin.rs` | messages to users |

mod account;
mod mail;
mod origin;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use drystone_mesh::{
    call::Call,
    clock::{Clock, Timestamp},
    email::Email,
    id,
};
use drystone_store::outbox::{Deliver, DeliveryError, Message, Outcome, Relay};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use self::origin::Origin;
use self::{account::is_settled, mail::Mail};
use crate::{
    error::Error,
    link::{Link, MAX_LINKS, Purpose, UNDO_LIFETIME},
    store::AuthStore,
    token::key_ring::KeyRing,
    upstreams::{Contact, Upstreams},
};

/// The timeout of a delivery.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long an answer waits until what follows is done.
const WAIT_TIMEOUT: Duration = Duration::from_secs(2);

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum FollowUp {
    /// Somebody has registered with this address, whose credential is pending. The address may have an account.
    CreateAccount { user_id: Uuid, email: String, display_name: String },
    /// A user has registered, and is sent a link to verify their address.
    SendVerification { user_id: Uuid },
    /// Somebody has asked for another link to verify this address, which may have no account.
    ResendVerification { email: String },
    /// The user gets this address, whose link was used; the one before is kept for them if they can undo that. Then the rest follows.
    SetEmail { user_id: Uuid, current: Option<String>, email: String, keeps_previous: bool, then: Vec<FollowUp> },
    /// The user wants another address, which is sent this link. It may have an account.
    SendEmailChange { user_id: Uuid, email: String, link: Uuid },
    /// The address before is told that another one is wanted.
    TellEmailChange { user_id: Uuid, email: String, client: Origin },
    /// The address before is sent this link to undo the change.
    SendEmailUndo { user_id: Uuid, email: String, link: Uuid },
    /// The user is told in their inbox that their address has changed.
    TellEmailChanged { user_id: Uuid, email: String },
    /// Somebody has asked for a link to choose a new password for this address, which may have no account.
    SendPasswordReset { email: String },
    /// The user has to choose a new password, and is sent a link to the address that they have got back.
    SendRequiredReset { user_id: Uuid, email: String },
    /// The sessions of the user end, except for the one that has changed the password.
    EndSessions { user_id: Uuid, except: Option<Uuid> },
    /// The tokens of a signing key are refused from now on.
    VoidKey { kid: String },
    /// The user is told that their password was changed.
    TellPasswordChanged { user_id: Uuid, client: Origin },
    /// The user is told that a session has ended, since somebody has used one of its refresh tokens again.
    TellTokenReused { user_id: Uuid, client: Origin },
    /// The user is told that two clients seem to share a session.
    TellSessionShared { user_id: Uuid, client: Origin },
    /// The user is told that an authenticator app was added: by mail to this address with a link to take the account back, and in the inbox.
    TellFactorAdded { user_id: Uuid, email: String, client: Origin },
    /// The user is told that their second factors have changed.
    TellFactorChanged { user_id: Uuid, change: String, client: Origin },
    /// The user is told of a sign-in on a new device: by mail with a link to report it, and in the inbox.
    TellNewDevice { user_id: Uuid, email: String, client: Origin, method: String },
}

impl FollowUp {
    /// As a message of the outbox. Those of one key are delivered in order.
    pub(crate) fn message(&self, now: Timestamp) -> Result<Message, Error> {
        let key = match self {
            Self::SendPasswordReset { email } => format!("reset {email}"),
            Self::ResendVerification { email } => format!("verification {email}"),
            Self::EndSessions { user_id, .. } => format!("sessions {user_id}"),
            Self::VoidKey { kid } => format!("key {kid}"),
            // What protects the user waits for no mail.
            Self::CreateAccount { user_id, .. } | Self::SetEmail { user_id, .. } => format!("account {user_id}"),
            // To an address that somebody has chosen, who may want to hold up the others.
            Self::SendEmailChange { user_id, .. } => format!("email_change {user_id}"),
            Self::SendVerification { user_id }
            | Self::SendEmailUndo { user_id, .. }
            | Self::TellEmailChanged { user_id, .. }
            | Self::SendRequiredReset { user_id, .. }
            | Self::TellEmailChange { user_id, .. }
            | Self::TellPasswordChanged { user_id, .. }
            | Self::TellTokenReused { user_id, .. }
            | Self::TellSessionShared { user_id, .. }
            | Self::TellFactorAdded { user_id, .. }
            | Self::TellFactorChanged { user_id, .. }
            | Self::TellNewDevice { user_id, .. } => format!("mail {user_id}"),
        };
        let payload = serde_json::to_vec(self).map_err(Error::FollowUp)?;
        Ok(Message { id: id::v7_at(now), kind: "follow_up".to_owned(), key, payload, created_at: now })
    }
}

/// Whether a message was delivered, which is waited for.
pub(crate) async fn is_done(relay: &Relay, message: Uuid) -> Result<bool, Error> {
    Ok(relay.outcome(message, WAIT_TIMEOUT).await? == Outcome::Delivered)
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
        self.follow(&call, message, follow_up).await.map_err(|error| DeliveryError::Temporary(error.to_string()))
    }
}

impl FollowUps {
    async fn follow(&self, call: &Call, message: &Message, follow_up: FollowUp) -> Result<(), Error> {
        match follow_up {
            FollowUp::CreateAccount { user_id, email, display_name } => {
                self.create_account(call, message, user_id, &email, &display_name).await
            }
            FollowUp::SendVerification { user_id } => {
                let contact = self.upstreams.contact_by_id(call, user_id).await?;
                self.send_verification(call, message, contact).await
            }
            FollowUp::ResendVerification { email } => {
                let contact = self.contact_by_email(call, &email).await?;
                self.send_verification(call, message, contact).await
            }
            FollowUp::SetEmail { user_id, current, email, keeps_previous, then } => {
                let keep_until = keeps_previous.then(|| message.created_at + UNDO_LIFETIME);
                let set = self.upstreams.set_email(call, user_id, current.as_deref(), &email, keep_until).await;
                if is_settled(set)? { self.put(message, then).await } else { Ok(()) }
            }
            FollowUp::SendEmailChange { user_id, email, link } => {
                self.send_email_change(call, message, user_id, email, link).await
            }
            FollowUp::TellEmailChange { user_id, email, client } => {
                let Some(contact) = self.upstreams.contact_by_id(call, user_id).await? else { return Ok(()) };
                let mut parameters = client.parameters().to_vec();
                parameters.push(("new_email", email));
                let mail = Mail { template: "email_change_notice", parameters, expires_at: None };
                self.send(call, message.id, contact, mail).await
            }
            FollowUp::SendEmailUndo { user_id, email, link } => {
                let Some(contact) = self.upstreams.contact_by_id(call, user_id).await? else { return Ok(()) };
                let purpose = Purpose::EmailUndo;
                // It was stored when the other link was used.
                let Some(link) = self.store.link(link, purpose).await? else { return Ok(()) };
                let previous = Contact { email: link.email.clone().unwrap_or_default(), ..contact };
                let parameters = vec![("new_email", email), ("days", in_days(purpose)), ("link", self.url(&link))];
                let mail = Mail { template: "email_changed", parameters, expires_at: Some(link.expires_at) };
                self.send(call, message.id, previous, mail).await
            }
            FollowUp::TellEmailChanged { user_id, email } => {
                let Some(contact) = self.with_email(call, user_id, &email).await? else { return Ok(()) };
                let parameters = vec![("new_email", email)];
                let mail = Mail { template: "email_changed_notice", parameters, expires_at: None };
                self.send(call, message.id, contact, mail).await
            }
            FollowUp::SendPasswordReset { email } => {
                let contact = self.contact_by_email(call, &email).await?;
                self.send_password_reset(call, message, contact, MAX_LINKS).await
            }
            FollowUp::SendRequiredReset { user_id, email } => {
                let contact = self.with_email(call, user_id, &email).await?;
                // However many others have asked for: it follows from a link that serves once.
                self.send_password_reset(call, message, contact, u32::MAX).await
            }
            FollowUp::VoidKey { kid } => self.upstreams.void_key_tokens(call, &kid).await,
            FollowUp::EndSessions { user_id, except } => self.upstreams.end_sessions(call, user_id, except).await,
            FollowUp::TellPasswordChanged { user_id, client } => {
                self.tell(call, message, "password_changed", user_id, client).await
            }
            FollowUp::TellTokenReused { user_id, client } => {
                self.tell(call, message, "session_ended_reuse", user_id, client).await
            }
            FollowUp::TellSessionShared { user_id, client } => {
                // Two windows of one program look the same, all day long.
                let purpose = Purpose::SessionShared;
                let now = self.clock.now();
                let told = Link { email: None, ..Link::new(message.id, purpose, user_id, String::new(), now) };
                let told = self.store.insert_link(&told, 1, now - purpose.lifetime()).await?;
                if told.is_none() {
                    return Ok(());
                }
                self.tell(call, message, "session_shared", user_id, client).await
            }
            FollowUp::TellFactorAdded { user_id, email, client } => {
                let Some(contact) = self.upstreams.contact_by_id(call, user_id).await? else { return Ok(()) };
                let (purpose, parameters) = (Purpose::SignInReport, client.parameters().to_vec());
                let contact = Contact { email, ..contact };
                // However many mails about sign-ins somebody has caused before.
                let max = (u32::MAX, "second_factor_added");
                self.send_link(call, message, purpose, max, contact.clone(), parameters.clone()).await?;
                let mail = Mail { template: "second_factor_added_notice", parameters, expires_at: None };
                self.send(call, second_id(message.id), contact, mail).await
            }
            FollowUp::TellFactorChanged { user_id, change, client } => {
                let Some(contact) = self.upstreams.contact_by_id(call, user_id).await? else { return Ok(()) };
                let mut parameters = client.parameters().to_vec();
                parameters.push(("change", change));
                let mail = Mail { template: "second_factor_changed", parameters, expires_at: None };
                self.send(call, message.id, contact, mail).await
            }
            FollowUp::TellNewDevice { user_id, email, client, method } => {
                let Some(contact) = self.upstreams.contact_by_id(call, user_id).await? else { return Ok(()) };
                let mut parameters = client.parameters().to_vec();
                parameters.push(("method", method));
                let (purpose, notice) = (Purpose::SignInReport, parameters.clone());
                // To the address of the sign-in, whichever the account has by now: its link gives that address back.
                let contact = Contact { email, ..contact };
                let max = (MAX_LINKS, "new_device");
                self.send_link(call, message, purpose, max, contact.clone(), parameters).await?;
                let mail = Mail { template: "new_device_notice", parameters: notice, expires_at: None };
                self.send(call, second_id(message.id), contact, mail).await
            }
        }
    }

    async fn contact_by_email(&self, call: &Call, email: &str) -> Result<Option<Contact>, Error> {
        let Ok(email) = Email::parse(email) else { return Ok(None) };
        self.upstreams.contact_by_email(call, &email).await
    }

    /// The contact of a user, if they have this address.
    async fn with_email(&self, call: &Call, user_id: Uuid, email: &str) -> Result<Option<Contact>, Error> {
        let contact = self.upstreams.contact_by_id(call, user_id).await?;
        Ok(contact.filter(|contact| contact.has_email(email)))
    }

    /// Stores what follows from a message, with the same ids each time it is delivered.
    async fn put(&self, message: &Message, follow_ups: Vec<FollowUp>) -> Result<(), Error> {
        for (number, follow_up) in (1..).zip(follow_ups) {
            let id = Uuid::from_u128(message.id.as_u128() ^ number);
            self.store.put(&Message { id, ..follow_up.message(message.created_at)? }).await?;
        }
        Ok(())
    }

    pub(super) async fn send_password_reset(
        &self,
        call: &Call,
        message: &Message,
        contact: Option<Contact>,
        max: u32,
    ) -> Result<(), Error> {
        let Some(contact) = contact.filter(|contact| contact.is_active) else { return Ok(()) };
        let minutes = (Purpose::PasswordReset.lifetime().as_secs() / 60).to_string();
        let parameters = vec![("minutes", minutes)];
        let purpose = Purpose::PasswordReset;
        self.send_link(call, message, purpose, (max, "password_reset"), contact, parameters).await
    }

    async fn send_verification(&self, call: &Call, message: &Message, contact: Option<Contact>) -> Result<(), Error> {
        let Some(contact) = contact.filter(|contact| contact.is_active && !contact.email_verified) else {
            return Ok(());
        };
        // Anybody can choose a name and an address: who is not known to have both is not addressed by it.
        let contact = Contact { display_name: String::new(), ..contact };
        let (purpose, parameters) = (Purpose::EmailVerification, vec![("hours", in_hours(Purpose::EmailVerification))]);
        self.send_link(call, message, purpose, (MAX_LINKS, "email_verification"), contact, parameters).await
    }
}

fn in_hours(purpose: Purpose) -> String {
    (purpose.lifetime().as_secs() / 3600).to_string()
}

fn in_days(purpose: Purpose) -> String {
    (purpose.lifetime().as_secs() / 86_400).to_string()
}

/// The id of a second message to the user, the same each time it is delivered.
fn second_id(first: Uuid) -> Uuid {
    Uuid::from_u128(first.as_u128() ^ 1)
}
