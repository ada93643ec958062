//! Messages, and their deliveries.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use drystone_mesh::{clock::Timestamp, time::to_micros};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::channel::Channel;

/// Whom a message is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipient {
    /// The user; `None` for an address without an account.
    pub user_id: Option<Uuid>,
    /// The e-mail address.
    pub email: Option<String>,
    /// The name that the message addresses; may be empty.
    pub display_name: String,
    /// The language, a BCP 47 tag; empty for the configured one.
    pub locale: String,
}

/// A message that is to be accepted.
#[derive(Clone)]
pub struct NewMessage {
    /// Its id, which the sender has generated.
    pub id: Uuid,
    /// The template.
    pub template: String,
    /// The workload that sends it.
    pub sender: String,
    /// Whom it is for.
    pub recipient: Recipient,
    /// Parameters of the template.
    pub parameters: BTreeMap<String, String>,
    /// Whether a parameter is secret: then they are encrypted.
    pub has_secrets: bool,
    /// When it is not delivered any more.
    pub expires_at: Timestamp,
    /// Where it is delivered to.
    pub deliveries: Vec<NewDelivery>,
    /// What is added to the inbox of the user.
    pub inbox: Option<InboxText>,
}

impl NewMessage {
    /// SHA-256 of what the sender has sent: template, parameters, recipient and, if the sender has set one, the time of expiry.
    #[must_use]
    pub fn fingerprint(&self, requested_expiry: Option<Timestamp>) -> [u8; 32] {
        let Recipient { user_id, email, display_name, locale } = &self.recipient;
        let user_id = user_id.map(|id| id.to_string()).unwrap_or_default();
        let expiry = requested_expiry.map(|at| to_micros(at).to_string()).unwrap_or_default();
        let email = email.as_deref().unwrap_or_default();
        let mut context = Context::new(&SHA256);
        let fixed = [&*self.template, &*self.sender, &user_id, email, display_name, locale, &expiry];
        let parameters = self.parameters.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        for part in fixed.into_iter().chain(parameters) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.finish().as_ref());
        fingerprint
    }
}

/// A delivery that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Its id.
    pub id: Uuid,
    /// The channel.
    pub channel: Channel,
    /// The e-mail address, the name of the webhook, or the user.
    pub destination: String,
}

impl NewDelivery {
    /// What is limited and paused together with it: the domain of a mail, or the webhook.
    #[must_use]
    pub fn lane(&self) -> String {
        let destination = match self.channel {
            Channel::Mail => self.destination.rsplit_once('@').map_or("", |(_, domain)| domain).to_ascii_lowercase(),
            Channel::Webhook => self.destination.clone(),
            Channel::Inbox => String::new(),
        };
        format!("{} {destination}", self.channel.name())
    }

    /// Whether it is made when the message is accepted.
    #[must_use]
    pub fn is_immediate(&self) -> bool {
        self.channel == Channel::Inbox
    }
}

/// What is added to an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxText {
    /// The category of the template.
    pub category: String,
    /// The title.
    pub title: String,
    /// The text.
    pub body: String,
}

/// What has become of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It will be attempted.
    Queued,
    /// The receiver has accepted it.
    Delivered,
    /// It was given up.
    Dead,
}

impl State {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Queued, Self::Delivered, Self::Dead];

    /// The name, such as `queued`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    /// As it is stored.
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Queued => 1,
            Self::Delivered => 2,
            Self::Dead => 3,
        }
    }

    /// An unknown number is of a later release, which may do with the delivery what this one does not know.
    pub(crate) fn from_number(number: i64) -> Self {
        Self::ALL.into_iter().find(|state| state.number() == number).unwrap_or(Self::Queued)
    }
}

/// A delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id, a UUID of version 7.
    pub id: Uuid,
    /// The message.
    pub message_id: Uuid,
    /// The template of the message.
    pub template: String,
    /// The user whom it is for.
    pub user_id: Option<Uuid>,
    /// The channel; `None` if a later release knows it alone.
    pub channel: Option<Channel>,
    /// The e-mail address, the name of the webhook, or the user.
    pub destination: String,
    /// What has become of it.
    pub state: State,
    /// How often it was attempted.
    pub attempts: u32,
    /// When it is attempted next.
    pub next_attempt_at: Timestamp,
    /// Why the last attempt failed; empty if none has.
    pub last_error: String,
    /// When the message was accepted.
    pub created_at: Timestamp,
    /// When it was delivered or given up.
    pub finished_at: Option<Timestamp>,
}

/// A delivery that this instance attempts, with its message.
pub struct Job {
    /// The delivery.
    pub id: Uuid,
    /// The message.
    pub message_id: Uuid,
    /// The user whom it is for.
    pub user_id: Option<Uuid>,
    /// The channel; `None` if a later release knows it alone.
    pub channel: Option<Channel>,
    /// The e-mail address or the name of the webhook.
    pub destination: String,
    /// What is limited and paused together with it.
    pub lane: String,
    /// Attempts that have ended, and this one.
    pub attempts: u32,
    /// Leases since an attempt has ended last, with this one.
    pub leases: u32,
    /// The template.
    pub template: String,
    /// The name that the message addresses.
    pub display_name: String,
    /// The language.
    pub locale: String,
    /// The parameters.
    pub parameters: Parameters,
    /// When it is not delivered any more.
    pub expires_at: Timestamp,
    /// When the message was accepted.
    pub created_at: Timestamp,
}

/// The parameters of a stored message: a JSON object.
pub enum Parameters {
    /// As they are.
    Plain(Zeroizing<Vec<u8>>),
    /// Encrypted.
    Sealed(Vec<u8>),
}
