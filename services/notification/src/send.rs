//! Accepting a message: what is checked before it is stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use drystone_mesh::{
    clock::{Clock, Timestamp},
    email::Email,
    error::Error as MeshError,
    id,
    text::{self, LineMode},
};
use drystone_store::sealing::{Place, Sealer, Stored};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    Error,
    channel::Channel,
    dispatch::Dispatcher,
    inbox::Inboxes,
    message::{Delivery, InboxText, NewDelivery, NewMessage, Recipient},
    metrics::DeliveryMetrics,
    store::NotificationStore,
    template::{Template, Templates},
};

/// A message, as its sender has sent it.
pub(crate) struct Request {
    pub(crate) id: Uuid,
    pub(crate) template: String,
    pub(crate) sender: String,
    pub(crate) recipient: Recipient,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) expires_at: Option<Timestamp>,
}

/// A webhook that messages of some categories go to.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    pub(crate) name: String,
    /// Empty: all.
    pub(crate) categories: Vec<String>,
}

/// Accepts messages.
pub(crate) struct Sending {
    pub(crate) store: NotificationStore,
    pub(crate) templates: Arc<Templates>,
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) sealer: Sealer,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) inboxes: Inboxes,
    pub(crate) metrics: DeliveryMetrics,
    pub(crate) clock: Clock,
    pub(crate) give_up_after: Duration,
}

impl Sending {
    /// Accepts a message, and returns its deliveries.
    pub(crate) async fn send(&self, request: Request) -> Result<Vec<Delivery>, MeshError> {
        let now = self.clock.now();
        let template = self.templates.get(&request.template);
        let template = template.ok_or_else(|| Error::TemplateNotFound(request.template.clone()))?;
        if !template.may_send(&request.sender) {
            return Err(Error::SenderNotAllowed { template: request.template, sender: request.sender }.into());
        }
        let recipient = check_recipient(request.recipient, template)?;
        let checked = template.check(&request.parameters);
        let checked = checked.map_err(|error| MeshError::invalid_field("parameters", error.to_string()))?;
        let inbox = if template.channels().contains(&Channel::Inbox) {
            let text = checked.inbox(&recipient.locale, &recipient.display_name);
            Some(text.map_err(|error| Error::Render(request.template.clone(), error))?)
        } else {
            None
        };
        let requested_expiry = request.expires_at;
        let mut message = NewMessage {
            has_secrets: template.has_secrets(),
            expires_at: requested_expiry.unwrap_or(Timestamp::MAX_UTC).min(now + self.give_up_after),
            id: request.id,
            template: request.template,
            sender: request.sender,
            recipient,
            parameters: request.parameters,
            deliveries: Vec::new(),
            inbox: None,
        };
        message.deliveries = self.deliveries(&message.recipient, template, now).await?;
        if message.deliveries.iter().any(|delivery| delivery.channel == Channel::Inbox) {
            let category = template.category().to_owned();
            message.inbox = inbox.map(|text| InboxText { category, title: text.title, body: text.body });
        }
        let fingerprint = message.fingerprint(requested_expiry);
        let parameters = self.parameters(&message).await?;
        let accepted = self.store.accept(&message, fingerprint, &parameters, now).await?;
        if !accepted.is_repeated {
            self.dispatcher.wake();
            if let (Some(_), Some(user)) = (&message.inbox, message.recipient.user_id) {
                self.metrics.record_immediate(Channel::Inbox);
                self.inboxes.notify(user);
            }
        }
        Ok(accepted.deliveries)
    }

    /// Where a message is delivered to: over the channels of its template that its user has not switched off.
    async fn deliveries(
        &self,
        recipient: &Recipient,
        template: &Template,
        now: Timestamp,
    ) -> Result<Vec<NewDelivery>, Error> {
        let category = template.category();
        let opt_outs = match recipient.user_id {
            Some(user) if !template.is_security() => self.store.opt_outs(user).await?,
            _ => BTreeSet::new(),
        };
        let wanted = |channel: &&Channel| !opt_outs.contains(&(category.to_owned(), **channel));
        let mut deliveries = Vec::new();
        for channel in template.channels().iter().filter(wanted).copied() {
            let destinations: Vec<String> = match channel {
                Channel::Mail => recipient.email.iter().cloned().collect(),
                Channel::Inbox => recipient.user_id.iter().map(Uuid::to_string).collect(),
                Channel::Webhook => self.subscribers(category),
            };
            let new = |destination| NewDelivery { id: id::v7_at(now), channel, destination };
            deliveries.extend(destinations.into_iter().map(new));
        }
        Ok(deliveries)
    }

    fn subscribers(&self, category: &str) -> Vec<String> {
        let wants = |subscriber: &&Subscriber| {
            subscriber.categories.is_empty() || subscriber.categories.iter().any(|wanted| wanted == category)
        };
        self.subscribers.iter().filter(wants).map(|subscriber| subscriber.name.clone()).collect()
    }

    /// The parameters as they are stored.
    async fn parameters(&self, message: &NewMessage) -> Result<Stored, MeshError> {
        let json = serde_json::to_vec(&message.parameters).map_err(MeshError::internal)?;
        let json = Zeroizing::new(json);
        if !message.has_secrets {
            return Ok(Stored::Plain(json));
        }
        let sealed = self.sealer.seal(place(&message.id), &json).await.map_err(Error::Seal)?;
        Ok(Stored::Sealed(sealed))
    }
}

/// Where the parameters of a message are stored.
pub(crate) fn place(message: &Uuid) -> Place<'_> {
    Place { table: "message", row: message.as_bytes(), column: "parameters" }
}

fn check_recipient(recipient: Recipient, template: &Template) -> Result<Recipient, MeshError> {
    let needs = |channel| template.channels().contains(&channel);
    let email = match &recipient.email {
        Some(email) => {
            let email = Email::parse(email);
            let email = email.map_err(|error| MeshError::invalid_field("recipient.email", error.to_string()))?;
            if email.as_str().parse::<lettre::Address>().is_err() {
                return Err(MeshError::invalid_field(
                    "recipient.email",
                    "must be an address that mails can be sent to",
                ));
            }
            Some(email.into_string())
        }
        None if needs(Channel::Mail) => {
            return Err(MeshError::invalid_field("recipient.email", "must be set: the template is sent as mail"));
        }
        None => None,
    };
    if recipient.user_id.is_none() && needs(Channel::Inbox) {
        return Err(MeshError::invalid_field("recipient.user_id", "must be set: the template goes to the inbox"));
    }
    if recipient.display_name.chars().any(char::is_control) {
        return Err(MeshError::invalid_field("recipient.display_name", "must not have control characters"));
    }
    let display_name = if is_name(&recipient.display_name) { recipient.display_name } else { String::new() };
    Ok(Recipient { email, display_name, ..recipient })
}

/// Whether mails may greet somebody so. Users choose their names, and may register with the address of somebody else: what could be a
/// message of its own, or a link, is left out.
fn is_name(name: &str) -> bool {
    const MAX_CHARS: usize = 64;
    text::normalize(name, LineMode::Single, MAX_CHARS).is_ok()
        && !name.contains(['/', '\\', '@', '<', '>'])
        && !name.to_lowercase().contains("www.")
        && !has_domain(name)
}

/// Whether a dot is followed by a letter: mail programs make links of that.
fn has_domain(name: &str) -> bool {
    let mut pairs = name.chars().zip(name.chars().skip(1));
    pairs.any(|(first, second)| first == '.' && second.is_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn a_name_that_could_be_a_message_of_its_own_is_left_out() {
        for name in ["", "Ada", "Ada Lovelace", "Dr. Ada King-Noel", "Ян", "阿达", "O'Neill"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(65);
        for name in [
            "https://evil.example",
            "see evil.example",
            "WWW.evil",
            "ada@evil.example",
            "a\\b",
            "<b>",
            "Ada\u{202e}",
            &long,
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
